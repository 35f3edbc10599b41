// switchyard plan as a function, for callers in the process.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"

namespace switchyard {

// What `switchyard plan ARGUMENTS --json` prints. Throws Error for arguments that the command refuses.
Json plan_as_json(const std::vector<std::string>& arguments);

}  // namespace switchyard
