// One token of each row through the decoder by kernels alone: two parallel regions a sparse layer in place of one an
// operation, memory taken once, and of routing only what the token needs. The bits are those of the operations.
#pragma once

#include <memory>

#include "model/decoder_cache.h"

namespace switchyard {

class FusedDecoding {
 public:
  // Null where a part of the model has no such kernel: then the operations compute. The cache outlives it.
  static std::shared_ptr<FusedDecoding> make(const ModelConfig& config, const ComputeWeights& weights,
                                             DecoderCache& cache);
  virtual ~FusedDecoding() = default;

  // As decode_step(), of ids [rows, 1] for at most ops::kFewRows rows; config and weights are those of make().
  virtual at::Tensor step(const ModelConfig& config, const ComputeWeights& weights, const CachedRows& rows,
                          const at::Tensor& ids, std::vector<SparseLayer>* sparse_layers) = 0;
};

}  // namespace switchyard
