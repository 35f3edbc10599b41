// Training of low-rank updates (LoRA; Hu et al. 2021) in place of matrices: W + alpha / rank * B A, where W stays.
//
// The model and its gradients know nothing of it: a step gives the gradient of each whole matrix, of which those of A
// and B are made, and the optimiser changes these. So it holds under any division into micro-batches, and saves the
// optimiser's memory and that of checkpoints, not the matrix's gradient.
#pragma once

#include <string>
#include <vector>

#include "checkpoint/adapters.h"
#include "optim/optimizer.h"

namespace switchyard {

struct LowRankOptions {
  int64_t rank = 0;  // 0: matrices are trained themselves
  double alpha = 16.0;
};

// Matrices of attention and of dense feed-forward layers.
bool takes_low_rank(const ParameterSpec& spec);

class LowRankUpdates {
 public:
  // matrices[n] [out, in] f32, of specs[n], changed in place by apply(). A begins as PEFT's (variance 1 / (3 in)), a
  // function of seed and name; B is zero.
  LowRankUpdates(const LowRankOptions& options, const std::vector<ParameterSpec>& specs,
                 std::vector<at::Tensor> matrices, uint64_t seed);

  // A and B of each matrix, in order, as the optimiser takes them.
  std::vector<OptimizedParameter> parameters() const;

  // Of these, from those of the matrices; undefined ones stay so.
  std::vector<at::Tensor> gradients(const std::vector<at::Tensor>& of_matrices) const;

  // Puts W + alpha / rank * B A into the matrices.
  void apply() const;

  // Views, with `base` empty.
  Adapters adapters() const;
  // Takes values of the same matrices and rank, and applies them. Throws Error naming what differs.
  void load(const Adapters& adapters);

 private:
  LowRankOptions options_;
  std::vector<std::string> names_;
  std::vector<at::Tensor> matrices_, bases_, a_, b_;
};

}  // namespace switchyard
