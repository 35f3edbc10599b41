// Softmax cross entropy over the vocabulary, fused with the output projection. Tiles of logits are made, used and
// forgotten in cache; the backward pass makes them again, which costs one product more and no memory.
//
// T is float or BFloat16. hidden [rows, d_model], weight [vocab, d_model], contiguous; rows a multiple of 16 (pad with
// zeros), d_model a multiple of 64; label [rows] in [0, vocab), or -1 for padding. logits = scale * hidden weight^T in
// f32. Results do not depend on the number of threads (more than 16 have no work), nor a row's forward results on
// the other rows.
#pragma once

#include <cstdint>

#include "kernels/bfloat16.h"

namespace switchyard::kernels {

struct VocabularyProblem {
  int64_t rows, vocab, d_model;
  float scale;
  const int64_t* label;
};

// log_partition[row] = logsumexp of its logits, label_logit[row] (0 for padding), largest[row]: the largest logit.
template <class T>
void cross_entropy_forward(const VocabularyProblem& problem, const T* hidden, const T* weight, float* log_partition,
                           float* label_logit, float* largest);

// The gradients of grad_sum * sum_row(log_partition - label_logit) + grad_z * sum_row(log_partition^2).
// grad_hidden [rows, d_model] and grad_weight [vocab, d_model] may be null; both are overwritten.
template <class T>
void cross_entropy_backward(const VocabularyProblem& problem, const T* hidden, const T* weight,
                            const float* log_partition, float grad_sum, float grad_z, T* grad_hidden, T* grad_weight);

}  // namespace switchyard::kernels
