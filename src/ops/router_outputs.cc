#include "ops/router_outputs.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/log.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "kernels/routing.h"
#include "ops/token_rows.h"

namespace switchyard::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr double kGateEpsilon = 1e-9;  // Mesh: keeps the quotient finite

// Entry lists by token: those of token t are first[t] to first[t + 1].
struct Entries {
  std::vector<int64_t> first, expert;
  std::vector<float> grad;
};

// Softmax scores on the CPU in f32, one pass each way.
struct FusedOutputs : torch::autograd::Function<FusedOutputs> {
  struct Saved : torch::CustomClassHolder {
    explicit Saved(const at::Tensor& token, int64_t tokens) : rows(token, tokens) {}
    TokenRows rows;
    std::vector<int64_t> expert;  // [rows]
    GateNormalization normalization;
    int64_t loss_group_size;
    double num_real;
    std::vector<double> importance;  // [num_experts]: sum of probabilities
  };

  // What each token's gates are divided by. [tokens]
  static std::vector<float> denominators(const float* p, int64_t num_experts, const RoutedTokens& routed,
                                         const Saved& saved) {
    const int64_t tokens = saved.rows.num_tokens();
    std::vector<float> result(static_cast<size_t>(tokens), static_cast<float>(kGateEpsilon));
    const bool before = saved.normalization == GateNormalization::kBeforeDrop;
    for (int64_t token = 0; token < tokens; ++token) {
      auto& sum = result[static_cast<size_t>(token)];
      const float* row = p + token * num_experts;
      if (before) {
        const int64_t width = routed.choice.size(1);
        const auto* chosen = read<int64_t>(routed.choice) + token * width;
        for (int64_t choice = 0; choice < width; ++choice) sum += row[chosen[choice]];
      } else {
        for (auto n = saved.rows.first[static_cast<size_t>(token)];
             n < saved.rows.first[static_cast<size_t>(token) + 1]; ++n)
          sum += row[saved.expert[static_cast<size_t>(saved.rows.row[static_cast<size_t>(n)])]];
      }
    }
    return result;
  }

  static variable_list forward(AutogradContext* context, const at::Tensor& logits, const TokenStatistics& statistics,
                               const RoutedTokens& routed, GateNormalization normalization) {
    const int64_t tokens = logits.size(0), num_experts = logits.size(1);
    const auto& token = routed.assignment.token;
    const int64_t rows = token.size(0);
    const auto* p = read<float>(statistics.probability);
    auto saved = c10::make_intrusive<Saved>(token, tokens);
    saved->expert = routed.assignment.expert;
    saved->normalization = normalization;
    saved->loss_group_size = routed.loss_group_size;
    saved->num_real = routed.num_real;
    auto gate = at::empty({rows}, at::kFloat);
    for (int64_t row = 0; row < rows; ++row)
      write<float>(gate)[row] = p[read<int64_t>(token)[row] * num_experts + saved->expert[static_cast<size_t>(row)]];
    auto denominator = at::Tensor();
    if (normalization != GateNormalization::kNone) {
      denominator = at::tensor(denominators(p, num_experts, routed, *saved));
      for (int64_t row = 0; row < rows; ++row)
        write<float>(gate)[row] /= read<float>(denominator)[read<int64_t>(token)[row]];
    }

    const auto* real = routed.mask.defined() ? read<bool>(routed.mask) : nullptr;
    double balance = 0.0, z = 0.0;
    std::vector<double> sums(static_cast<size_t>(num_experts));
    saved->importance.assign(static_cast<size_t>(num_experts), 0.0);
    for (int64_t start = 0, group = 0; start < tokens; start += routed.loss_group_size, ++group) {
      std::fill(sums.begin(), sums.end(), 0.0);
      for (int64_t t = start; t < std::min(tokens, start + routed.loss_group_size); ++t) {
        if (real != nullptr && !real[t]) continue;
        for (int64_t expert = 0; expert < num_experts; ++expert)
          sums[static_cast<size_t>(expert)] += p[t * num_experts + expert];
        const double log_partition = read<float>(statistics.log_partition)[t];
        z += log_partition * log_partition;
      }
      for (int64_t expert = 0; expert < num_experts; ++expert) {
        const double sum = sums[static_cast<size_t>(expert)];
        balance += read<double>(routed.balance_weight)[group * num_experts + expert] * sum;
        saved->importance[static_cast<size_t>(expert)] += sum;
      }
    }
    double importance = 0.0;
    for (const double deviation : deviations(*saved)) importance += deviation * deviation;
    context->save_for_backward({statistics.probability, statistics.log_partition, routed.mask, gate, denominator,
                                routed.balance_weight.to(at::kFloat),
                                normalization == GateNormalization::kBeforeDrop ? routed.choice : at::Tensor()});
    const auto sum_of_probabilities = at::tensor(saved->importance, at::kDouble);
    context->mark_non_differentiable({sum_of_probabilities});
    context->saved_data["saved"] = c10::IValue::make_capsule(std::move(saved));
    return {gate, at::scalar_tensor(balance, logits.options()),
            at::scalar_tensor(z / routed.num_real, logits.options()),
            at::scalar_tensor(importance / static_cast<double>(num_experts), logits.options()), sum_of_probabilities};
  }

  // (I_e - mean) / mean of the importances I_e.
  static std::vector<double> deviations(const Saved& saved) {
    const double mean = saved.num_real / static_cast<double>(saved.importance.size());
    auto result = saved.importance;
    for (double& value : result) value = value / mean - 1.0;
    return result;
  }

  // Gradients of the probabilities that gates were made of.
  static Entries entries(const Saved& saved, const at::Tensor& gate, const at::Tensor& grad_gate,
                         const at::Tensor& denominator, const at::Tensor& choice) {
    const auto tokens = saved.rows.first.size() - 1;
    Entries result;
    if (!grad_gate.defined()) {
      result.first.assign(tokens + 1, 0);
      return result;
    }
    const auto contiguous = grad_gate.contiguous();
    const auto* grad = read<float>(contiguous);
    if (saved.normalization == GateNormalization::kNone) {
      result.first = saved.rows.first;
      for (const int64_t row : saved.rows.row) {
        result.expert.push_back(saved.expert[static_cast<size_t>(row)]);
        result.grad.push_back(grad[row]);
      }
      return result;
    }
    result.first.push_back(0);
    for (size_t token = 0; token < tokens; ++token) {
      const float inverse = 1.0F / read<float>(denominator)[token];
      float sum = 0.0F;  // every gate of the token falls with the denominator
      for (auto n = saved.rows.first[token]; n < saved.rows.first[token + 1]; ++n) {
        const int64_t row = saved.rows.row[static_cast<size_t>(n)];
        sum += grad[row] * read<float>(gate)[row];
        result.expert.push_back(saved.expert[static_cast<size_t>(row)]);
        result.grad.push_back(grad[row] * inverse);
      }
      if (choice.defined()) {
        for (int64_t n = 0; n < choice.size(1); ++n) {
          result.expert.push_back(read<int64_t>(choice)[static_cast<int64_t>(token) * choice.size(1) + n]);
          result.grad.push_back(-sum * inverse);
        }
      } else {
        for (auto n = static_cast<size_t>(result.first.back()); n < result.grad.size(); ++n)
          result.grad[n] -= sum * inverse;
      }
      result.first.push_back(static_cast<int64_t>(result.grad.size()));
    }
    return result;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto tensors = context->get_saved_variables();
    const auto &probability = tensors[0], &log_partition = tensors[1], &mask = tensors[2];
    const auto capsule = context->saved_data["saved"].toCapsule();
    const auto& saved = static_cast<const Saved&>(*capsule);
    const auto number = [](const at::Tensor& grad) { return grad.defined() ? grad.item<double>() : 0.0; };
    const int64_t tokens = probability.size(0), num_experts = probability.size(1);
    auto weight = tensors[5] * number(grads[1]);
    if (const double factor = number(grads[3]); factor != 0.0) {
      const double mean = saved.num_real / static_cast<double>(num_experts);
      weight = weight + at::tensor(deviations(saved)) * (2.0 * factor / (static_cast<double>(num_experts) * mean));
      weight = weight.to(at::kFloat);
    }
    const auto list = entries(saved, tensors[3], grads[0], tensors[4], tensors[6]);
    auto grad = at::empty_like(probability);
    kernels::route_backward({.probability = read<float>(probability),
                             .log_partition = read<float>(log_partition),
                             .mask = mask.defined() ? read<bool>(mask) : nullptr,
                             .first_entry = list.first.data(),
                             .entry_expert = list.expert.data(),
                             .entry_grad = list.grad.data(),
                             .weight = read<float>(weight),
                             .group_size = saved.loss_group_size,
                             .z_factor = static_cast<float>(number(grads[2]) / saved.num_real)},
                            tokens, num_experts, write<float>(grad));
    return {grad, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

// The same in plain ATen, and sigmoid scores.
RouterOutputs plain_outputs(const at::Tensor& logits, const RoutedTokens& routed, RouterScore score_kind,
                            GateNormalization normalization) {
  const int64_t tokens = logits.size(0), num_experts = logits.size(1);
  const bool is_sigmoid = score_kind == RouterScore::kSigmoid;
  const auto score = is_sigmoid ? at::sigmoid(logits) : at::softmax(logits, 1);  // Switch eq. 1
  const auto probability = is_sigmoid ? score / score.sum(1, true) : score;
  const auto token = routed.assignment.token.to(logits.device());
  const auto expert = at::tensor(routed.assignment.expert, at::kLong).to(logits.device());
  auto gate = score.reshape({-1}).index_select(0, token * num_experts + expert);
  if (normalization == GateNormalization::kAfterDrop) {
    const auto sums = at::zeros({tokens}, score.options()).index_add(0, token, gate);
    gate = gate / (sums.index_select(0, token) + kGateEpsilon);
  } else if (normalization == GateNormalization::kBeforeDrop) {
    const auto sums = score.gather(1, routed.choice.to(logits.device())).sum(1);
    gate = gate / (sums.index_select(0, token) + kGateEpsilon);
  }
  auto weight =
      routed.balance_weight.repeat_interleave(routed.loss_group_size, 0).narrow(0, 0, tokens).to(logits.options());
  const auto log_partition = at::logsumexp(logits, 1);
  auto square = log_partition * log_partition;
  auto real_probability = probability;
  if (routed.mask.defined()) {
    const auto real = routed.mask.to(logits.options());
    real_probability = probability * real.unsqueeze(1);
    square = square * real;
  }
  const auto importance = real_probability.sum(0);
  const auto deviation = importance * (static_cast<double>(num_experts) / routed.num_real) - 1.0;
  return {gate, (real_probability * weight).sum(), square.sum() / routed.num_real, (deviation * deviation).mean(),
          importance.detach().to(at::kDouble)};
}

}  // namespace

TokenStatistics token_statistics(const at::Tensor& given, RouterScore score) {
  const auto logits = given.detach().contiguous();
  if (score == RouterScore::kSigmoid) {
    const auto sigmoid = at::sigmoid(logits), probability = sigmoid / sigmoid.sum(1, true);
    return {sigmoid, probability, at::argmax(logits, 1).cpu(), at::logsumexp(logits, 1),
            -(probability * at::log(probability)).sum(1)};
  }
  if (!is_fused(logits)) {
    const auto probability = at::softmax(logits, 1), log_partition = at::logsumexp(logits, 1);
    return {probability, probability, at::argmax(logits, 1).cpu(), log_partition,
            log_partition - (probability * logits).sum(1)};
  }
  const int64_t tokens = logits.size(0), num_experts = logits.size(1);
  const auto make = [&] { return at::empty({tokens}, at::kFloat); };
  const auto probability = at::empty_like(logits);
  TokenStatistics result{probability, probability, at::empty({tokens}, at::kLong), make(), make()};
  kernels::route_forward(read<float>(logits), tokens, num_experts, write<float>(result.probability),
                         write<int64_t>(result.best), write<float>(result.log_partition), write<float>(result.entropy));
  return result;
}

RouterOutputs router_outputs(const at::Tensor& logits, const TokenStatistics& statistics, const RoutedTokens& routed,
                             RouterScore score, GateNormalization normalization) {
  if (!is_fused(logits) || score != RouterScore::kSoftmax) return plain_outputs(logits, routed, score, normalization);
  const auto outputs = FusedOutputs::apply(logits, statistics, routed, normalization);
  return {outputs[0], outputs[1], outputs[2], outputs[3], outputs[4]};
}

}  // namespace switchyard::ops
