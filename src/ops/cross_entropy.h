// The output projection: its logits, and its cross entropy in one pass over blocks of tokens, which keeps no [tokens,
// vocab] logits. All see the same logits, the sums of products of the operands in f32: nothing is rounded on the way.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/feature_split.h"

namespace switchyard::ops {

struct CrossEntropy {
  at::Tensor sum;    // [] f32: sum over kept labels of -log softmax(logits)[label]; differentiable
  at::Tensor z_sum;  // [] f32: sum over kept labels of logsumexp(logits)^2; differentiable
  int64_t num_labels = 0;
  int64_t num_correct = 0;  // kept labels that are the argmax
  at::Tensor token_losses;  // [tokens] f32: the terms of sum, 0 where ignored; without gradient
};

// logits = (hidden * scale) weight^T in f32. hidden [tokens, d_model] compute dtype, weight [vocab, d_model] the same
// dtype, labels [tokens] i64 with -100 = ignored. Differentiable in hidden and weight through sum and z_sum. Throws
// Error on a label outside [0, vocab). With a part of the vocabulary, weight is that part of the table, labels are of
// the whole, and so are the results: parts exchange three numbers a token.
CrossEntropy linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels,
                                  double scale, const VocabularyPart& part = {});

// log softmax(logits)[label] per token, [tokens] f32, 0 where ignored; no gradient (scoring). A token's does not
// depend on the tokens beside it.
at::Tensor label_log_probabilities(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels,
                                   double scale, const VocabularyPart& part = {});

// Those logits, [tokens, vocab] f32 (f64 for f64), of the whole vocabulary. Differentiable in hidden and weight.
at::Tensor vocabulary_logits(const at::Tensor& hidden, const at::Tensor& weight, double scale,
                             const VocabularyPart& part = {});

}  // namespace switchyard::ops
