// Held-out loss by part (by language, say), sparse runs beside dense ones: the paper's figures of multilingual training
// (Switch §4.3), what each gains and how many steps sooner.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "report/run_log.h"

namespace switchyard {

// "" where compare_parts() has nothing.
std::string draw_parts(const std::vector<RunLog>& runs);

// The numbers of these figures: a list of {name, dense_loss, sparse_loss, improvement, dense_steps, sparse_steps,
// speed_up}.
Json parts_to_json(const std::vector<RunLog>& runs);

}  // namespace switchyard
