// T5 attention by ATen operations, with the scores in memory: differentiable by composition, on any device and in any
// dtype. What the fused kernels are tested against, and what runs where they do not.
#pragma once

#include "ops/attention.h"

namespace switchyard::ops::reference {

// As ops::attention; arguments are not checked again.
at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& bias_by_distance,
                     const at::Tensor& key_mask, const AttentionOptions& options);

at::Tensor cached_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const at::Tensor& bias_by_distance, const at::Tensor& key_mask, const CachedKeys& keys,
                            const AttentionOptions& options);

}  // namespace switchyard::ops::reference
