// What was printed must have arrived: a full disk or a closed pipe is not success.
#pragma once

#include <stdexcept>

namespace switchyard {

class OutputError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Sends on what std::cout and stdout hold. Throws OutputError if that, or anything written before, did not arrive. main
// calls it at the end of every command; a command that goes on for long calls it between its results.
void flush_standard_output();

}  // namespace switchyard
