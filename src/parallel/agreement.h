// Whether the ranks of a run are the same run: before they compute anything that would differ.
#pragma once

#include <map>
#include <string>

#include "parallel/process_group.h"

namespace switchyard {

// Every rank calls it with facts about itself by name, the config's text for example; all have to equal rank 0's.
// Throws Error on every rank, with the same message: which rank and which fact, rank 0's value and its own (of a long
// text the first line that differs).
void check_agreement(const ProcessGroup& group, const std::map<std::string, std::string>& facts);

}  // namespace switchyard
