#include "ops/router.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "base/error.h"
#include "kernels/noise.h"
#include "kernels/routing.h"
#include "ops/cpu.h"
#include "ops/reference.h"

namespace switchyard::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The part of routing that has no gradient: who goes where, and the counts that the losses need. All on the CPU.
struct Assignment {
  at::Tensor expert_index;  // [tokens] i64, -1 where dropped or padding
  Dispatch dispatch;
  at::Tensor num_chosen;  // [groups, num_experts] f64: real tokens that chose the expert, before dropping
  int64_t num_real = 0;
  int64_t num_dropped = 0;

  // Means over real tokens divide by this.
  double denominator() const { return static_cast<double>(std::max<int64_t>(num_real, 1)); }

  // Switch eq. 4-6: N sum_e f_e P_e a group, the groups weighted by real tokens, is one weighted sum of probabilities:
  // token t of group g has weight N f_ge / num_real = N num_chosen_ge / (num_real_g num_real). [groups, num_experts]
  // f64.
  at::Tensor balance_weight() const {
    const auto group_real = num_chosen.sum(1, /*keepdim=*/true).clamp_min(1.0);
    return num_chosen / group_real * (static_cast<double>(num_chosen.size(1)) / denominator());
  }
};

// choice [tokens]: argmax of each token. mask [tokens] or null. Slots left to right within each group (Switch §2.2;
// Mesh).
Assignment assign_slots(const int64_t* choice, const bool* mask, int64_t tokens, int64_t num_experts,
                        const RouteOptions& options) {
  Assignment result;
  const auto num_groups = static_cast<int64_t>(options.expert_capacity.size());
  result.expert_index = at::empty({tokens}, at::kLong);
  result.num_chosen = at::zeros({num_groups, num_experts}, at::kDouble);
  result.dispatch.num_rows.assign(static_cast<size_t>(num_experts), 0);
  int64_t* expert_index = result.expert_index.mutable_data_ptr<int64_t>();
  double* num_chosen = result.num_chosen.mutable_data_ptr<double>();
  for (int64_t token = 0; token < tokens; ++token) {
    expert_index[token] = -1;
    if (mask != nullptr && !mask[token]) continue;
    ++result.num_real;
    const int64_t group = token / options.group_size, expert = choice[token];
    double& chosen = num_chosen[group * num_experts + expert];
    chosen += 1.0;  // counts the dropped as well, so slots are left exactly as long as it is within capacity
    if (chosen > static_cast<double>(options.expert_capacity[static_cast<size_t>(group)])) {
      ++result.num_dropped;
    } else {
      expert_index[token] = expert;
      ++result.dispatch.num_rows[static_cast<size_t>(expert)];
    }
  }
  // Counting sort by expert: stable, so that tokens stay in order within an expert.
  std::vector<int64_t> next(static_cast<size_t>(num_experts), 0);
  for (size_t expert = 1; expert < next.size(); ++expert)
    next[expert] = next[expert - 1] + result.dispatch.num_rows[expert - 1];
  result.dispatch.token = at::empty({result.num_real - result.num_dropped}, at::kLong);
  int64_t* rows = result.dispatch.token.mutable_data_ptr<int64_t>();
  for (int64_t token = 0; token < tokens; ++token)
    if (expert_index[token] >= 0) rows[next[static_cast<size_t>(expert_index[token])]++] = token;
  return result;
}

void check_route(const at::Tensor& logits, const at::Tensor& token_mask, const RouteOptions& options) {
  SY_CHECK(logits.dim() == 2 && logits.size(1) > 0 &&
               (logits.scalar_type() == at::kFloat || logits.scalar_type() == at::kDouble),
           "route_top1: expected logits [tokens, num_experts] f32 or f64, got ", logits.toString(), " ",
           logits.sizes());
  SY_CHECK(!token_mask.defined() ||
               (token_mask.dim() == 1 && token_mask.size(0) == logits.size(0) && token_mask.scalar_type() == at::kBool),
           "route_top1: expected a bool token_mask [", logits.size(0), "]");
  SY_CHECK(options.group_size > 0, "route_top1: group_size ", options.group_size, " is not positive");
  const int64_t num_groups = (logits.size(0) + options.group_size - 1) / options.group_size;
  SY_CHECK(static_cast<int64_t>(options.expert_capacity.size()) == num_groups, "route_top1: ", logits.size(0),
           " tokens in groups of ", options.group_size, " are ", num_groups, " groups, got ",
           options.expert_capacity.size(), " capacities");
  for (const int64_t capacity : options.expert_capacity)
    SY_CHECK(capacity >= 0, "route_top1: expert_capacity ", capacity, " is negative");
}

// A jittered f32 copy of x that lives only as long as a product needs it; made again in the backward pass.
struct RouterLogits : torch::autograd::Function<RouterLogits> {
  struct Jitter : torch::CustomClassHolder {
    Jitter(double spread_, const NoiseKey& key_, int64_t first_token_)
        : spread(static_cast<float>(spread_)),
          key(stream_key(key_)),
          first_token(static_cast<uint64_t>(first_token_)) {}
    float spread;
    kernels::StreamKey key;
    uint64_t first_token;

    // x [tokens, d_model] times the factors, in `dtype`; one of the dtypes is f32.
    at::Tensor times(const at::Tensor& x, at::ScalarType dtype) const {
      if (spread == 0.0F) return x.to(dtype);
      const auto from = x.contiguous();
      auto to = at::empty(x.sizes(), x.options().dtype(dtype));
      const int64_t rows = x.size(0), width = x.size(1);
      if (dtype == at::kBFloat16)
        kernels::jitter_rows(key, first_token, read<float>(from), write<kernels::BFloat16>(to), rows, width, spread);
      else
        with_kernel_type(x.scalar_type(), [&](auto type) {
          kernels::jitter_rows(key, first_token, read<decltype(type)>(from), write<float>(to), rows, width, spread);
        });
      return to;
    }
  };

  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias, double spread, const NoiseKey& key,
                            int64_t first_token) {
    auto jitter = c10::make_intrusive<Jitter>(spread, key, first_token);
    auto logits = at::mm(jitter->times(x, at::kFloat), weight.t());
    if (bias) logits.add_(*bias);
    context->save_for_backward({x, weight});
    context->saved_data["jitter"] = c10::IValue::make_capsule(std::move(jitter));
    context->saved_data["has_bias"] =
        bias.has_value();  // an absent tensor has no place among the inputs that autograd counts
    return logits;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1];
    const auto capsule = context->saved_data["jitter"].toCapsule();
    const auto& jitter = static_cast<const Jitter&>(*capsule);
    const auto grad = grads[0].contiguous();
    at::Tensor grad_x, grad_weight, grad_bias;
    if (context->needs_input_grad(0)) grad_x = jitter.times(at::mm(grad, weight), x.scalar_type());
    if (context->needs_input_grad(1)) grad_weight = at::mm(grad.t(), jitter.times(x, at::kFloat));
    if (context->saved_data["has_bias"].toBool() && context->needs_input_grad(2)) grad_bias = grad.sum(0);
    return {grad_x, grad_weight, grad_bias, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

// What the router's distribution says about each token, without gradient.
struct TokenStatistics {
  at::Tensor probability;    // [tokens, num_experts]
  at::Tensor choice;         // [tokens] i64, argmax, the first of equal values
  at::Tensor log_partition;  // [tokens]
  at::Tensor entropy;        // [tokens], nats
};

TokenStatistics token_statistics(const at::Tensor& given) {
  const auto logits = given.detach().contiguous();
  if (!is_fused(logits)) {
    const auto probability = at::softmax(logits, 1), log_partition = at::logsumexp(logits, 1);
    return {probability, at::argmax(logits, 1).cpu(), log_partition, log_partition - (probability * logits).sum(1)};
  }
  const int64_t tokens = logits.size(0), num_experts = logits.size(1);
  const auto make = [&] { return at::empty({tokens}, at::kFloat); };
  TokenStatistics result{at::empty_like(logits), at::empty({tokens}, at::kLong), make(), make()};
  kernels::route_forward(read<float>(logits), tokens, num_experts, write<float>(result.probability),
                         write<int64_t>(result.choice), write<float>(result.log_partition),
                         write<float>(result.entropy));
  return result;
}

// The differentiable outputs as one function of the logits.
struct RouterOutputs : torch::autograd::Function<RouterOutputs> {
  static variable_list forward(AutogradContext* context, const at::Tensor& logits, const TokenStatistics& statistics,
                               const Assignment& assignment, const std::optional<at::Tensor>& mask,
                               int64_t group_size) {
    const int64_t tokens = logits.size(0), num_experts = logits.size(1), rows = assignment.dispatch.token.size(0);
    const auto* p = read<float>(statistics.probability);
    const auto* real = mask ? read<bool>(*mask) : nullptr;
    auto gate = at::empty({rows}, at::kFloat);
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t token = read<int64_t>(assignment.dispatch.token)[row];
      write<float>(gate)[row] = p[token * num_experts + read<int64_t>(statistics.choice)[token]];
    }
    const auto weight = assignment.balance_weight();
    double balance = 0.0, z = 0.0;
    std::vector<double> sums(static_cast<size_t>(num_experts));
    for (int64_t start = 0, group = 0; start < tokens; start += group_size, ++group) {
      std::fill(sums.begin(), sums.end(), 0.0);
      for (int64_t token = start; token < std::min(tokens, start + group_size); ++token) {
        if (real != nullptr && !real[token]) continue;
        for (int64_t expert = 0; expert < num_experts; ++expert)
          sums[static_cast<size_t>(expert)] += p[token * num_experts + expert];
        const double log_partition = read<float>(statistics.log_partition)[token];
        z += log_partition * log_partition;
      }
      for (int64_t expert = 0; expert < num_experts; ++expert)
        balance += read<double>(weight)[group * num_experts + expert] * sums[static_cast<size_t>(expert)];
    }
    context->save_for_backward({statistics.probability, statistics.choice, statistics.log_partition,
                                mask.value_or(at::Tensor()), assignment.dispatch.token, weight.to(at::kFloat)});
    context->saved_data["group_size"] = group_size;
    context->saved_data["num_real"] = assignment.denominator();
    return {gate, at::scalar_tensor(balance, logits.options()),
            at::scalar_tensor(z / assignment.denominator(), logits.options())};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const auto &probability = saved[0], &choice = saved[1], &mask = saved[3], &token = saved[4];
    const int64_t tokens = probability.size(0), num_experts = probability.size(1);
    const auto number = [](const at::Tensor& grad) { return grad.defined() ? grad.item<double>() : 0.0; };
    auto gate_grad = at::zeros({tokens}, at::kFloat);
    if (grads[0].defined()) gate_grad.index_copy_(0, token, grads[0]);
    const auto weight = saved[5] * number(grads[1]);
    auto grad = at::empty_like(probability);
    kernels::route_backward(
        {.probability = read<float>(probability),
         .choice = read<int64_t>(choice),
         .log_partition = read<float>(saved[2]),
         .mask = mask.defined() ? read<bool>(mask) : nullptr,
         .gate_grad = read<float>(gate_grad),
         .weight = read<float>(weight),
         .group_size = context->saved_data["group_size"].toInt(),
         .z_factor = static_cast<float>(number(grads[2]) / context->saved_data["num_real"].toDouble())},
        tokens, num_experts, write<float>(grad));
    return {grad, at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

// The same in plain ATen: {gate, load_balance_loss, router_z_loss}.
variable_list plain_outputs(const at::Tensor& logits, const TokenStatistics& statistics, const Assignment& assignment,
                            const at::Tensor& mask, int64_t group_size) {
  const int64_t tokens = logits.size(0), num_experts = logits.size(1);
  const auto probability = at::softmax(logits, 1);  // Switch eq. 1
  const auto& token = assignment.dispatch.token;
  const auto cell = (token * num_experts + statistics.choice.index_select(0, token)).to(logits.device());
  auto weight = assignment.balance_weight().repeat_interleave(group_size, 0).narrow(0, 0, tokens).to(logits.options());
  const auto log_partition = at::logsumexp(logits, 1);
  auto square = log_partition * log_partition;
  if (mask.defined()) {
    const auto real = mask.to(logits.options());
    weight = weight * real.unsqueeze(1);
    square = square * real;
  }
  return {probability.reshape({-1}).index_select(0, cell), (probability * weight).sum(),
          square.sum() / assignment.denominator()};
}

}  // namespace

at::Tensor router_logits(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double jitter_noise,
                         const NoiseKey& key, int64_t first_token) {
  SY_CHECK(x.dim() == 2 && weight.dim() == 2 && weight.size(1) == x.size(1) &&
               (weight.scalar_type() == at::kFloat || weight.scalar_type() == at::kDouble),
           "router_logits: expected x [tokens, d_model] and weight [num_experts, d_model] f32 or f64, got ", x.sizes(),
           " and ", weight.toString(), " ", weight.sizes());
  SY_CHECK(!bias.defined() ||
               (bias.dim() == 1 && bias.size(0) == weight.size(0) && bias.scalar_type() == weight.scalar_type()),
           "router_logits: expected bias [", weight.size(0), "] of the weight's dtype");
  SY_CHECK(jitter_noise >= 0.0 && jitter_noise < 1.0, "router_logits: jitter_noise ", jitter_noise,
           " is not in [0, 1)");
  if (!is_fused(x) || weight.scalar_type() != at::kFloat)
    return reference::router_logits(x, weight, bias, jitter_noise, key, first_token);
  return RouterLogits::apply(x, weight, bias.defined() ? std::optional(bias) : std::nullopt, jitter_noise, key,
                             first_token);
}

Routing route_top1(const at::Tensor& logits, const at::Tensor& token_mask, const RouteOptions& options) {
  check_route(logits, token_mask, options);
  const auto mask = token_mask.defined() ? token_mask.cpu().contiguous() : at::Tensor();
  const auto statistics = token_statistics(logits);
  auto assignment = assign_slots(read<int64_t>(statistics.choice), mask.defined() ? read<bool>(mask) : nullptr,
                                 logits.size(0), logits.size(1), options);
  const auto outputs =
      is_fused(logits) ? RouterOutputs::apply(logits, statistics, assignment,
                                              mask.defined() ? std::optional(mask) : std::nullopt, options.group_size)
                       : plain_outputs(logits, statistics, assignment, mask, options.group_size);
  const double num_real = assignment.denominator();
  const auto entropy = mask.defined() ? statistics.entropy.cpu().masked_select(mask) : statistics.entropy;
  Routing routing;
  routing.expert_index = assignment.expert_index.to(logits.device());
  routing.gate = outputs[0];
  routing.load_balance_loss = outputs[1];
  routing.router_z_loss = outputs[2];
  routing.expert_load = (assignment.num_chosen.sum(0) / num_real).to(logits.options().dtype(at::kFloat));
  routing.dropped_fraction = static_cast<double>(assignment.num_dropped) / num_real;
  routing.router_entropy = entropy.sum(at::kDouble).item<double>() / num_real;
  routing.dispatch = std::move(assignment.dispatch);
  return routing;
}

}  // namespace switchyard::ops
