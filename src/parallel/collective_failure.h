// The ranks of a run can no longer work together.
#pragma once

#include <stdexcept>

namespace switchyard {

// Names the collective, its group, this rank and what is known of the rank that failed. Not an Error: a failing
// machine, exit code 1. The groups of the run are dead after it; a program says what it has to say and ends, by
// _exit(), since threads of the groups may still wait for ranks that are gone.
class CollectiveFailure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace switchyard
