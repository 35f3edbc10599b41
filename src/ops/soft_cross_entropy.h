// The cross entropy of a student against a teacher's probabilities, in blocks of tokens: of neither model are there
// [tokens, vocab] logits at once.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

namespace switchyard::ops {

// What a teacher holds of the tokens with these numbers, [block] i64 on the CPU: [block, vocab] f32 (f64 for f64), rows
// that sum to 1.
using TeacherProbabilities = std::function<at::Tensor(const at::Tensor& tokens)>;

// Sum over tokens with a label of -sum_v p[v] log softmax(logits / temperature)[v], [] f32 (f64 for f64), with the
// logits of linear_cross_entropy(): hidden [tokens, d_model] and weight [vocab, d_model] of one dtype, labels [tokens]
// i64, -100 = ignored. Differentiable in hidden and weight; gradients are made with the loss, so that a teacher is
// asked once. Throws Error for probabilities of another shape.
at::Tensor soft_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels,
                              double scale, double temperature, const TeacherProbabilities& probabilities);

}  // namespace switchyard::ops
