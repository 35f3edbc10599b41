// The ranks of a run as a launcher started them and the run file lays them out.
#pragma once

#include <memory>

#include "parallel/mesh.h"
#include "train/run_config.h"

namespace switchyard {

// The mesh of this process: one rank where nobody launched more. Ranks meet, and agree on program, run file and
// threads; with ranks of one machine each takes its share of the processor's threads. Throws Error for a layout that is
// not the number of ranks, for ranks that differ, naming in what, and where ranks do not come.
std::unique_ptr<Mesh> open_mesh(const RunConfig& run, at::Device device);

// Whether a launcher has started these ranks again after a failure: the run goes on from its newest checkpoint.
bool is_restart();

}  // namespace switchyard
