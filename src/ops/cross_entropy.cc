#include "ops/cross_entropy.h"

#include <ATen/core/grad_mode.h>

#include "base/error.h"
#include "ops/reference.h"

namespace switchyard::ops {
namespace {

void check_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels) {
  SY_CHECK(hidden.dim() == 2 && weight.dim() == 2 && hidden.size(1) == weight.size(1) &&
               hidden.scalar_type() == weight.scalar_type(),
           "cross entropy: expected hidden [tokens, d_model] and weight [vocab, d_model] of one dtype, got ", hidden.toString(),
           " ", hidden.sizes(), " and ", weight.toString(), " ", weight.sizes());
  SY_CHECK(labels.dim() == 1 && labels.size(0) == hidden.size(0) && labels.scalar_type() == at::kLong,
           "cross entropy: expected int64 labels [", hidden.size(0), "], got ", labels.toString(), " ", labels.sizes());
  if (labels.numel() == 0) return;
  const auto cpu = labels.cpu().contiguous();
  const int64_t* values = cpu.const_data_ptr<int64_t>();
  for (int64_t token = 0; token < cpu.numel(); ++token)
    SY_CHECK(values[token] == -100 || (values[token] >= 0 && values[token] < weight.size(0)), "label ", values[token],
             " of token ", token, " is outside the vocabulary of ", weight.size(0), " (-100 marks ignored tokens)");
}

}  // namespace

CrossEntropy linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels, double scale) {
  check_cross_entropy(hidden, weight, labels);
  return reference::linear_cross_entropy(hidden, weight, labels, scale);
}

at::Tensor label_log_probabilities(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels, double scale) {
  check_cross_entropy(hidden, weight, labels);
  const at::NoGradGuard no_grad;
  return reference::label_log_probabilities(hidden, weight, labels, scale);
}

}  // namespace switchyard::ops
