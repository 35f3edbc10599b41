#include "ops/cross_entropy.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "base/error.h"
#include "kernels/cross_entropy.h"
#include "ops/backend.h"
#include "ops/product.h"
#include "ops/quantized.h"
#include "ops/reference.h"

namespace switchyard::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void check_projection(const char* what, const at::Tensor& hidden, const at::Tensor& weight) {
  SY_CHECK(hidden.dim() == 2 && weight.dim() == 2 && hidden.size(1) == inputs_of(weight) &&
               takes_rows_of(weight, hidden.scalar_type()),
           what, ": expected hidden [tokens, d_model] and weight [vocab, d_model] of one dtype, got ",
           hidden.toString(), " ", hidden.sizes(), " and ", weight.toString(), " ", weight.sizes());
}

// Labels on the CPU, checked.
at::Tensor checked_labels(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels,
                          const VocabularyPart& part) {
  check_projection("cross entropy", hidden, weight);
  SY_CHECK(labels.dim() == 1 && labels.size(0) == hidden.size(0) && labels.scalar_type() == at::kLong,
           "cross entropy: expected int64 labels [", hidden.size(0), "], got ", labels.toString(), " ", labels.sizes());
  auto cpu = labels.cpu().contiguous();
  const auto* values = read<int64_t>(cpu);
  const int64_t vocab = part.split == nullptr ? weight.size(0) : part.vocab;
  for (int64_t token = 0; token < cpu.numel(); ++token)
    SY_CHECK(values[token] == -100 || (values[token] >= 0 && values[token] < vocab), "label ", values[token],
             " of token ", token, " is outside the vocabulary of ", vocab, " (-100 marks ignored tokens)");
  return cpu;
}

// The rows with a label, padded to the kernel's multiple of 16.
struct KeptRows {
  int64_t count = 0;
  at::Tensor token;  // [count] i64
  at::Tensor label;  // [padded] i64, a row of the table, kElsewhere for one of another part, -1 in padding
  static constexpr int64_t kElsewhere = int64_t{1} << 40;

  // first, vocab: the rows of the whole table that are here.
  KeptRows(const at::Tensor& labels, int64_t first, int64_t vocab) {
    const auto* values = read<int64_t>(labels);
    for (int64_t index = 0; index < labels.numel(); ++index) count += values[index] >= 0 ? 1 : 0;
    token = at::empty({count}, at::kLong);
    label = at::empty({(count + 15) / 16 * 16}, at::kLong).fill_(-1);
    auto* tokens = write<int64_t>(token);
    auto* kept = write<int64_t>(label);
    for (int64_t index = 0; index < labels.numel(); ++index)
      if (values[index] >= 0) {
        *tokens++ = index;
        const int64_t label_here = values[index] - first;
        *kept++ = label_here >= 0 && label_here < vocab ? label_here : kElsewhere;
      }
  }

  at::Tensor gather(const at::Tensor& hidden) const {
    auto rows = at::zeros({label.numel(), hidden.size(1)}, hidden.options());
    auto real = rows.narrow(0, 0, count);
    at::index_select_out(real, hidden, 0, token);
    return rows;
  }

  kernels::VocabularyProblem problem(const at::Tensor& weight, double scale) const {
    return {label.numel(), weight.size(0), weight.size(1), static_cast<float>(scale), read<int64_t>(label)};
  }
};

// Per padded row: logsumexp of the logits, the label's logit, the largest logit.
struct RowLogits {
  at::Tensor log_partition, label_logit, largest;
};

RowLogits run_forward(const KeptRows& kept, const at::Tensor& hidden, const at::Tensor& weight, double scale) {
  const auto make = [&] { return at::empty({kept.label.numel()}, at::kFloat); };
  RowLogits result{make(), make(), make()};
  const auto rows = kept.gather(hidden), table = weight.contiguous();
  with_kernel_type(hidden.scalar_type(), [&](auto type) {
    using T = decltype(type);
    kernels::cross_entropy_forward<T>(kept.problem(table, scale), read<T>(rows), read<T>(table),
                                      write<float>(result.log_partition), write<float>(result.label_logit),
                                      write<float>(result.largest));
  });
  return result;
}

// What the parts of a vocabulary say of it as a whole.
void join_parts(const FeatureSplit& split, RowLogits& logits) {
  logits.label_logit = split.sum_of_parts(logits.label_logit);
  logits.largest = split.largest_of_parts(logits.largest);
  const auto shift = split.largest_of_parts(logits.log_partition);
  logits.log_partition = split.sum_of_parts(logits.log_partition.sub(shift).exp_()).log_().add_(shift);
}

struct Counts {
  int64_t num_labels = 0, num_correct = 0;
  at::Tensor token_losses;
};

struct LinearCrossEntropy : torch::autograd::Function<LinearCrossEntropy> {
  static variable_list forward(AutogradContext* context, const at::Tensor& hidden, const at::Tensor& weight,
                               const at::Tensor& labels, double scale, const VocabularyPart& part, Counts* counts) {
    const KeptRows kept(labels, part.first, weight.size(0));
    auto logits = run_forward(kept, hidden, weight, scale);
    if (part.split != nullptr) join_parts(*part.split, logits);
    double sum = 0.0, z_sum = 0.0;
    counts->token_losses = at::zeros({labels.numel()}, at::kFloat);
    auto* token_losses = write<float>(counts->token_losses);
    for (int64_t row = 0; row < kept.count; ++row) {
      const double log_partition = read<float>(logits.log_partition)[row],
                   label_logit = read<float>(logits.label_logit)[row];
      sum += log_partition - label_logit;
      token_losses[read<int64_t>(kept.token)[row]] = static_cast<float>(log_partition - label_logit);
      z_sum += log_partition * log_partition;
      // The largest is kept in other units, so a label that attains it may differ in the last bits.
      counts->num_correct += label_logit >= read<float>(logits.largest)[row] - 1e-6 * std::abs(label_logit) ? 1 : 0;
    }
    counts->num_labels = kept.count;
    context->save_for_backward({hidden, weight, labels, logits.log_partition});
    context->saved_data["scale"] = scale;
    context->saved_data["first"] = part.first;
    const auto options = hidden.options().dtype(at::kFloat);
    return {at::scalar_tensor(sum, options), at::scalar_tensor(z_sum, options)};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const auto& hidden = saved[0];
    const auto weight = saved[1].contiguous();
    const KeptRows kept(saved[2], context->saved_data["first"].toInt(), weight.size(0));
    const auto rows = kept.gather(hidden);
    const auto grad_rows = context->needs_input_grad(0) ? at::empty_like(rows) : at::Tensor();
    const auto grad_weight = context->needs_input_grad(1) ? at::empty_like(weight) : at::Tensor();
    const auto number = [](const at::Tensor& grad) { return grad.defined() ? grad.item<float>() : 0.0F; };
    with_kernel_type(hidden.scalar_type(), [&](auto type) {
      using T = decltype(type);
      kernels::cross_entropy_backward<T>(kept.problem(weight, context->saved_data["scale"].toDouble()), read<T>(rows),
                                         read<T>(weight), read<float>(saved[3]), number(grads[0]), number(grads[1]),
                                         grad_rows.defined() ? write<T>(grad_rows) : nullptr,
                                         grad_weight.defined() ? write<T>(grad_weight) : nullptr);
    });
    at::Tensor grad_hidden;
    if (grad_rows.defined())
      grad_hidden =
          at::zeros(hidden.sizes(), hidden.options()).index_copy_(0, kept.token, grad_rows.narrow(0, 0, kept.count));
    return {grad_hidden, grad_weight, at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

struct VocabularyLogits : torch::autograd::Function<VocabularyLogits> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& hidden, const at::Tensor& weight,
                            double scale) {
    context->save_for_backward({hidden, weight});
    context->saved_data["scale"] = scale;
    const auto logits = product_f32(hidden, weight);
    return scale == 1.0 ? logits : logits.mul_(scale);
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const auto &hidden = saved[0], &weight = saved[1];
    const auto grad = (grads[0] * context->saved_data["scale"].toDouble()).to(hidden.scalar_type());
    const std::vector<int64_t> num_rows = {hidden.size(0)};
    return {context->needs_input_grad(0) ? product(grad, weight.unsqueeze(0), num_rows) : at::Tensor(),
            context->needs_input_grad(1) ? product_of_columns(grad, hidden, num_rows).squeeze(0) : at::Tensor(),
            at::Tensor()};
  }
};

bool any_label(const at::Tensor& labels) { return labels.numel() > 0 && labels.max().item<int64_t>() >= 0; }

}  // namespace

CrossEntropy linear_cross_entropy(const at::Tensor& states, const at::Tensor& table, const at::Tensor& labels,
                                  double scale, const VocabularyPart& part) {
  const auto weight = values_of(table, states.scalar_type());
  const auto cpu_labels = checked_labels(states, weight, labels, part);
  const auto hidden = to_parts(part.split, states);
  if (!is_fused(hidden, Kernel::kPanels, {hidden.size(1)}) || !any_label(cpu_labels))
    return reference::linear_cross_entropy(hidden, weight, labels, scale, part);
  Counts counts;
  const auto sums = LinearCrossEntropy::apply(hidden, weight, cpu_labels, scale, part, &counts);
  return {.sum = sums[0],
          .z_sum = sums[1],
          .num_labels = counts.num_labels,
          .num_correct = counts.num_correct,
          .token_losses = counts.token_losses};
}

at::Tensor label_log_probabilities(const at::Tensor& hidden, const at::Tensor& table, const at::Tensor& labels,
                                   double scale, const VocabularyPart& part) {
  const auto weight = values_of(table, hidden.scalar_type());
  const auto cpu_labels = checked_labels(hidden, weight, labels, part);
  const at::NoGradGuard no_grad;
  if (!is_fused(hidden, Kernel::kPanels, {hidden.size(1)}) || !any_label(cpu_labels))
    return reference::label_log_probabilities(hidden, weight, labels, scale, part);
  const KeptRows kept(cpu_labels, part.first, weight.size(0));
  auto logits = run_forward(kept, hidden, weight, scale);
  if (part.split != nullptr) join_parts(*part.split, logits);
  const auto chosen = logits.label_logit.sub(logits.log_partition).narrow(0, 0, kept.count);
  return at::zeros({labels.size(0)}, at::kFloat).index_copy_(0, kept.token, chosen);
}

namespace {

at::Tensor logits_of_part(const at::Tensor& hidden, const at::Tensor& table, double scale) {
  if (is_fused(hidden, Kernel::kPanels, {hidden.size(1)})) return VocabularyLogits::apply(hidden, table, scale);
  const auto weight = values_of(table, hidden.scalar_type());
  if (hidden.size(0) > kFewRows) return reference::vocabulary_logits(hidden, weight, scale);
  // Row by row, as ATen's sums depend on the number of rows and a decoded row's must not.
  std::vector<at::Tensor> rows;
  for (const auto& row : hidden.split(1)) rows.push_back(reference::vocabulary_logits(row, weight, scale));
  return rows.size() == 1 ? rows[0] : at::cat(rows);
}

}  // namespace

at::Tensor vocabulary_logits(const at::Tensor& hidden, const at::Tensor& weight, double scale,
                             const VocabularyPart& part) {
  check_projection("vocabulary logits", hidden, weight);
  if (part.split == nullptr) return logits_of_part(hidden, weight, scale);
  const auto logits = logits_of_part(part.split->to_parts(hidden), weight, scale);
  return part.split->sum_of_parts(at::constant_pad_nd(logits, {part.first, part.vocab - part.first - weight.size(0)}));
}

}  // namespace switchyard::ops
