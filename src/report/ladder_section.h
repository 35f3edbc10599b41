// A ladder of sparse and dense models as a table and charts, from the ladder.json of `switchyard ladder`: final losses
// with their spread over seeds, curves against steps and against time, and loss against the number of experts.
#pragma once

#include <string>

#include "base/json.h"

namespace switchyard {

// Throws Error naming `source` if the document is not of that form. "" for one without runs.
std::string draw_ladder(const Json& document, const std::string& source);

}  // namespace switchyard
