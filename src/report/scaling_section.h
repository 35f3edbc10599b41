// Weak and strong scaling as charts of the report, from a scaling.json beside a run: what `switchyard plan --scaling
// --json` printed under "simulated", and under "measured" runs of some processes (scripts/scaling.py).
#pragma once

#include <filesystem>
#include <string>

#include "base/json.h"

namespace switchyard {

// Throws Error naming `source` if the document is not of that form. "" for one without points.
std::string draw_scaling(const Json& document, const std::string& source);

}  // namespace switchyard
