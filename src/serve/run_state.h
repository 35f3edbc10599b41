// How far a run is, from its folder.
#pragma once

#include "report/run_log.h"

namespace switchyard {

// {"name", "state", "step", "steps" (0: not known), "seconds" (of training), "seconds_left" (null: not known),
// "tokens_per_second", "train_loss", "eval_loss", "best_eval_loss" (each null where there is none), "layers": [{"name",
// "dropped", "load": [shares by expert]}]}. The state is "finished", "training" where a process of this machine holds
// the folder, or "stopped". Layers are means of the latest logged steps.
Json run_state(const RunLog& run);

}  // namespace switchyard
