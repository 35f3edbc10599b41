#include "ops/router.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>

#include "base/error.h"
#include "ops/reference.h"

namespace switchyard::ops {
namespace {

// The part of routing that has no gradient: who goes where, and the counts that the losses need. All on the CPU.
struct Assignment {
  at::Tensor expert_index;         // [tokens] i64, -1 where dropped or padding
  Dispatch dispatch;
  at::Tensor num_chosen;           // [groups, num_experts] f64: real tokens that chose the expert, before dropping
  int64_t num_real = 0;
  int64_t num_dropped = 0;
};

// choice [tokens]: argmax of each token. mask [tokens] or null. Slots left to right within each group (Switch §2.2; Mesh).
Assignment assign_slots(const int64_t* choice, const bool* mask, int64_t tokens, int64_t num_experts, const RouteOptions& options) {
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
  for (size_t expert = 1; expert < next.size(); ++expert) next[expert] = next[expert - 1] + result.dispatch.num_rows[expert - 1];
  result.dispatch.token = at::empty({result.num_real - result.num_dropped}, at::kLong);
  int64_t* rows = result.dispatch.token.mutable_data_ptr<int64_t>();
  for (int64_t token = 0; token < tokens; ++token)
    if (expert_index[token] >= 0) rows[next[static_cast<size_t>(expert_index[token])]++] = token;
  return result;
}

void check_route(const at::Tensor& logits, const at::Tensor& token_mask, const RouteOptions& options) {
  SY_CHECK(logits.dim() == 2 && logits.size(1) > 0 && (logits.scalar_type() == at::kFloat || logits.scalar_type() == at::kDouble),
           "route_top1: expected logits [tokens, num_experts] f32 or f64, got ", logits.toString(), " ", logits.sizes());
  SY_CHECK(!token_mask.defined() || (token_mask.dim() == 1 && token_mask.size(0) == logits.size(0) &&
                                     token_mask.scalar_type() == at::kBool),
           "route_top1: expected a bool token_mask [", logits.size(0), "]");
  SY_CHECK(options.group_size > 0, "route_top1: group_size ", options.group_size, " is not positive");
  const int64_t num_groups = (logits.size(0) + options.group_size - 1) / options.group_size;
  SY_CHECK(static_cast<int64_t>(options.expert_capacity.size()) == num_groups, "route_top1: ", logits.size(0), " tokens in groups of ",
           options.group_size, " are ", num_groups, " groups, got ", options.expert_capacity.size(), " capacities");
  for (const int64_t capacity : options.expert_capacity)
    SY_CHECK(capacity >= 0, "route_top1: expert_capacity ", capacity, " is negative");
}

}  // namespace

at::Tensor router_logits(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double jitter_noise,
                         const NoiseKey& key, int64_t first_token) {
  SY_CHECK(x.dim() == 2 && weight.dim() == 2 && weight.size(1) == x.size(1) &&
               (weight.scalar_type() == at::kFloat || weight.scalar_type() == at::kDouble),
           "router_logits: expected x [tokens, d_model] and weight [num_experts, d_model] f32 or f64, got ", x.sizes(), " and ",
           weight.toString(), " ", weight.sizes());
  SY_CHECK(!bias.defined() || (bias.dim() == 1 && bias.size(0) == weight.size(0) && bias.scalar_type() == weight.scalar_type()),
           "router_logits: expected bias [", weight.size(0), "] of the weight's dtype");
  SY_CHECK(jitter_noise >= 0.0 && jitter_noise < 1.0, "router_logits: jitter_noise ", jitter_noise, " is not in [0, 1)");
  return reference::router_logits(x, weight, bias, jitter_noise, key, first_token);
}

Routing route_top1(const at::Tensor& logits, const at::Tensor& token_mask, const RouteOptions& options) {
  check_route(logits, token_mask, options);
  const int64_t tokens = logits.size(0), num_experts = logits.size(1);
  // argmax gives the first of equal values.
  const auto choice = at::argmax(logits.detach(), 1).cpu();
  const auto mask = token_mask.defined() ? token_mask.cpu().contiguous() : at::Tensor();
  auto assignment = assign_slots(choice.const_data_ptr<int64_t>(), mask.defined() ? mask.const_data_ptr<bool>() : nullptr, tokens,
                                 num_experts, options);
  const auto num_real = static_cast<double>(std::max<int64_t>(assignment.num_real, 1));

  const auto probabilities = at::softmax(logits, 1);  // Switch eq. 1
  const auto row_expert = choice.index_select(0, assignment.dispatch.token);
  const auto cell = (assignment.dispatch.token * num_experts + row_expert).to(logits.device());

  // Switch eq. 4-6: N sum_e f_e P_e a group, the groups weighted by real tokens, is one weighted sum of probabilities:
  // token t of group g has weight N f_ge / num_real = N num_chosen_ge / (num_real_g num_real).
  const auto group_real = assignment.num_chosen.sum(1, /*keepdim=*/true).clamp_min(1.0);
  const auto group_weight = assignment.num_chosen / group_real * (static_cast<double>(num_experts) / num_real);
  auto token_weight = group_weight.repeat_interleave(options.group_size, 0).narrow(0, 0, tokens).to(logits.options());
  auto real = at::empty({tokens}, logits.options()).fill_(1.0);
  if (mask.defined()) real = mask.to(logits.options());

  const auto log_partition = at::logsumexp(logits, 1);
  const auto entropy = log_partition.detach() - (probabilities.detach() * logits.detach()).sum(1);
  Routing routing;
  routing.expert_index = assignment.expert_index.to(logits.device());
  routing.gate = probabilities.reshape({-1}).index_select(0, cell);
  routing.load_balance_loss = (probabilities * (token_weight * real.unsqueeze(1))).sum();
  routing.router_z_loss = (log_partition * log_partition * real).sum() / num_real;
  routing.expert_load = (assignment.num_chosen.sum(0) / num_real).to(logits.options().dtype(at::kFloat));
  routing.dropped_fraction = static_cast<double>(assignment.num_dropped) / num_real;
  routing.router_entropy = (entropy * real).sum().item<double>() / num_real;
  routing.dispatch = std::move(assignment.dispatch);
  return routing;
}

}  // namespace switchyard::ops
