// What a step's ranks add up: the counts that its losses are divided by, before; losses, routing and gradient norm,
// after.
#pragma once

#include "model/transformer.h"
#include "parallel/mesh.h"
#include "train/step.h"

namespace switchyard {

// The totals of the whole batch from those of this rank's part. One all-reduce of three numbers.
StepTotals sum_totals(StepTotals totals, const Mesh& mesh);

// Losses and routing of the whole step in place of those of this rank's part, and the sum of squares of all gradients,
// from those of this rank's own. One all-reduce.
void sum_results(StepResult& result, double& gradient_squares, const Mesh& mesh);

// The smallest of all ranks' numbers; `none` on a rank that has none.
size_t smallest_over_ranks(size_t mine, size_t none, const Mesh& mesh);

}  // namespace switchyard
