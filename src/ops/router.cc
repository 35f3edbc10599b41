#include "ops/router.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/erf.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "base/error.h"
#include "kernels/routing.h"
#include "ops/assignment.h"
#include "ops/backend.h"
#include "ops/reference.h"
#include "ops/router_outputs.h"

namespace switchyard::ops {
namespace {

void check_groups(int64_t tokens, const at::Tensor& token_mask, const RouteOptions& options) {
  SY_CHECK(!token_mask.defined() ||
               (token_mask.dim() == 1 && token_mask.size(0) == tokens && token_mask.scalar_type() == at::kBool),
           "route: expected a bool token_mask [", tokens, "]");
  SY_CHECK(options.group_size > 0, "route: group_size ", options.group_size, " is not positive");
  SY_CHECK(options.loss_group_size >= 0, "route: loss_group_size ", options.loss_group_size, " is negative");
  const int64_t num_groups = (tokens + options.group_size - 1) / options.group_size;
  SY_CHECK(static_cast<int64_t>(options.expert_capacity.size()) == num_groups, "route: ", tokens,
           " tokens in groups of ", options.group_size, " are ", num_groups, " groups, got ",
           options.expert_capacity.size(), " capacities");
  for (const int64_t capacity : options.expert_capacity)
    SY_CHECK(capacity >= 0, "route: expert_capacity ", capacity, " is negative");
}

void check_route(const at::Tensor& logits, const at::Tensor& token_mask, const RouteOptions& options) {
  SY_CHECK(logits.dim() == 2 && logits.size(1) > 0 &&
               (logits.scalar_type() == at::kFloat || logits.scalar_type() == at::kDouble),
           "route: expected logits [tokens, num_experts] f32 or f64, got ", logits.toString(), " ", logits.sizes());
  check_groups(logits.size(0), token_mask, options);
  SY_CHECK(options.num_selected_experts >= 1 && options.num_selected_experts <= logits.size(1),
           "route: ", options.num_selected_experts, " choices a token among ", logits.size(1), " experts");
  SY_CHECK(!options.selection_bias.defined() ||
               (options.selection_bias.dim() == 1 && options.selection_bias.size(0) == logits.size(1)),
           "route: expected selection_bias [", logits.size(1), "]");
}

// Gumbel noise: the best of logits + noise is a draw from their softmax, the k best are k draws without replacement.
at::Tensor gumbel_noise(const RouteOptions& options, int64_t tokens, int64_t num_experts) {
  auto noise = options.number.defined()
                   ? reference::uniform_noise_of(options.noise, options.number, num_experts, at::kCPU)
                   : reference::uniform_noise(options.noise, options.first_token, tokens, num_experts);
  auto* value = write<float>(noise);
  // In f64: in f32 the largest uniform, 1 - 2^-24, would be rounded to 1 and its noise be infinite.
  for (int64_t n = 0; n < noise.numel(); ++n)
    value[n] = static_cast<float>(-std::log(-std::log(static_cast<double>(value[n]) + 0x1p-25)));
  return noise;
}

// What experts are chosen by. [tokens, num_experts]
at::Tensor selection_scores(const at::Tensor& logits, const at::Tensor& score, const RouteOptions& options) {
  auto selection = logits.detach();
  if (options.selection_bias.defined() || options.selection_dtype != at::kFloat) selection = score;
  if (options.selection_dtype != at::kFloat) selection = selection.to(options.selection_dtype).to(logits.scalar_type());
  if (options.selection_bias.defined()) selection = selection + options.selection_bias.detach().to(selection.options());
  if (options.sample_temperature > 0.0)
    selection = selection / options.sample_temperature +
                gumbel_noise(options, logits.size(0), logits.size(1)).to(selection.options());
  return selection.contiguous();
}

bool chooses_by_logits(const RouteOptions& options) {
  return !options.selection_bias.defined() && options.selection_dtype == at::kFloat &&
         options.sample_temperature == 0.0;
}

// [tokens, num_selected_experts] i64 on the CPU.
at::Tensor choose(const at::Tensor& logits, const TokenStatistics& statistics, const RouteOptions& options) {
  if (options.num_selected_experts == 1 && chooses_by_logits(options)) return statistics.best.unsqueeze(1);
  const auto selection = selection_scores(logits, statistics.score, options);
  if (!is_fused(selection)) {
    const auto order = at::sort(selection, /*stable=*/true, /*dim=*/1, /*descending=*/true);
    return std::get<1>(order).narrow(1, 0, options.num_selected_experts).cpu().contiguous();
  }
  auto expert = at::empty({logits.size(0), options.num_selected_experts}, at::kLong);
  kernels::top_choices(read<float>(selection), selection.size(0), selection.size(1), options.num_selected_experts,
                       write<int64_t>(expert));
  return expert;
}

// The choices that the second policy leaves: -1 in place of the others.
at::Tensor apply_second_policy(const at::Tensor& choice, const at::Tensor& probability, const RouteOptions& options) {
  if (options.second_expert_policy == SecondExpertPolicy::kAll || options.num_selected_experts == 1) return choice;
  auto gate = probability.to(at::kDouble);
  if (options.gate_normalization != GateNormalization::kNone) gate = gate / (gate.sum(1, true) + 1e-9);
  gate = gate.contiguous();
  auto used = choice.clone();
  NoiseKey key = options.noise;
  key.purpose = NoisePurpose::kSecondExpert;
  const int64_t width = options.num_selected_experts;
  const auto numbers = options.number.defined() ? options.number.cpu().contiguous() : at::Tensor();
  for (int64_t token = 0; token < choice.size(0); ++token) {
    NoiseStream noise(
        key, static_cast<uint64_t>(numbers.defined() ? read<int64_t>(numbers)[token] : options.first_token + token));
    for (int64_t n = 1; n < width; ++n) {
      const double bound =
          options.second_expert_policy == SecondExpertPolicy::kThreshold ? 1.0 : static_cast<double>(noise.uniform());
      if (read<double>(gate)[token * width + n] <= bound * options.second_expert_threshold)
        write<int64_t>(used)[token * width + n] = -1;
    }
  }
  return used;
}

// What the balance loss counts: weight N count_ge / (size_g size) of the sum of probabilities of expert e in loss group
// g, which is Switch eq. 4-6 with the groups weighted by their tokens. [loss groups, num_experts] f64.
at::Tensor balance_weight(const at::Tensor& choice, const bool* mask, int64_t num_experts, int64_t group_size,
                          const RouteOptions& options) {
  const int64_t tokens = choice.size(0), groups = (tokens + group_size - 1) / group_size;
  const bool counts_padding = options.padding == PaddingRule::kCountedInLoad;
  const int64_t width = options.load_balance_choices == LoadBalanceChoices::kFirst ? 1 : choice.size(1);
  auto count = at::zeros({groups, num_experts}, at::kDouble), size = at::zeros({groups, 1}, at::kDouble);
  for (int64_t token = 0; token < tokens; ++token) {
    const bool is_real = mask == nullptr || mask[token];
    if (!is_real && !counts_padding) continue;
    const int64_t group = token / group_size;
    write<double>(size)[group] += 1.0;
    for (int64_t n = 0; n < width; ++n)
      write<double>(count)[group * num_experts + read<int64_t>(choice)[token * choice.size(1) + n]] += 1.0;
  }
  if (options.load_balance_choices == LoadBalanceChoices::kMean) count = count / static_cast<double>(width);
  const auto step = static_cast<double>(counts_padding ? options.step_tokens : options.step_real_tokens);
  const double all = step > 0.0 ? step : std::max(1.0, size.sum().item<double>());
  return count / size.clamp_min(1.0) * (static_cast<double>(num_experts) / all);
}

int64_t count_real(const bool* mask, int64_t tokens) {
  return mask == nullptr ? tokens : std::count(mask, mask + tokens, true);
}

// For each token the expert with the largest gate, -1 where it has none. [tokens] i64
at::Tensor best_experts(const Assignment& assignment, const at::Tensor& gate, int64_t tokens) {
  auto index = at::full({tokens}, -1, at::kLong);
  const auto gates = gate.detach().to(at::kDouble).cpu().contiguous();
  std::vector<double> best(static_cast<size_t>(tokens), -1.0);
  for (size_t row = 0; row < assignment.expert.size(); ++row) {
    const int64_t token = read<int64_t>(assignment.token)[row];
    const double value = read<double>(gates)[row];
    // A NaN gate still replaces the initial -1, so that a token with a slot always names an expert.
    if (best[static_cast<size_t>(token)] < 0.0 || value > best[static_cast<size_t>(token)]) {
      best[static_cast<size_t>(token)] = std::max(value, 0.0);
      write<int64_t>(index)[token] = assignment.expert[row];
    }
  }
  return index;
}

// The sums that follow from who was chosen and who got a slot; the others stay 0. asked: the choices that ask for
// slots, undefined in expert choice. index: best_experts().
RoutingCounts count_choices(const Assignment& assignment, const at::Tensor& asked, const at::Tensor& index,
                            const bool* mask) {
  const auto num_experts = static_cast<int64_t>(assignment.num_rows.size()), tokens = index.size(0);
  RoutingCounts counts{at::zeros({RoutingCounts::kNumSums + 2 * num_experts}, at::kDouble)};
  auto* sum = write<double>(counts.sums);
  auto* load = sum + RoutingCounts::kNumSums;
  const bool many = asked.defined() && asked.size(1) > 1;
  for (int64_t token = 0; token < tokens; ++token) {
    if (mask != nullptr && !mask[token]) continue;
    sum[RoutingCounts::kTokens] += 1.0;
    sum[RoutingCounts::kLeftBehind] += read<int64_t>(index)[token] < 0 ? 1.0 : 0.0;
    for (int64_t n = 0; asked.defined() && n < asked.size(1); ++n)
      if (const int64_t expert = read<int64_t>(asked)[token * asked.size(1) + n]; expert >= 0) {
        load[expert] += 1.0;
        if (many) sum[RoutingCounts::kAsked] += 1.0;
      }
  }
  const auto rows = static_cast<double>(assignment.expert.size());
  if (!asked.defined())
    for (int64_t expert = 0; expert < num_experts; ++expert)
      load[expert] = static_cast<double>(assignment.num_rows[static_cast<size_t>(expert)]);
  if (!many) sum[RoutingCounts::kAsked] = sum[RoutingCounts::kTokens];
  sum[RoutingCounts::kGiven] = many ? rows : sum[RoutingCounts::kTokens] - sum[RoutingCounts::kLeftBehind];
  sum[RoutingCounts::kRows] = rows;
  sum[RoutingCounts::kSlots] = static_cast<double>(assignment.num_slots);
  return counts;
}

double sum_over_real(const at::Tensor& values, const at::Tensor& mask) {
  const auto real = mask.defined() ? values.cpu().masked_select(mask) : values;
  return real.sum(at::kDouble).item<double>();
}

Dispatch dispatch_of(const Assignment& assignment, const RouteOptions& options) {
  return make_dispatch(assignment.token, assignment.num_rows, options.first_token, options.number);
}

at::Tensor cpu_mask(const at::Tensor& token_mask) {
  return token_mask.defined() ? token_mask.cpu().contiguous() : at::Tensor();
}

}  // namespace

Routing route(const at::Tensor& logits, const at::Tensor& token_mask, const RouteOptions& options) {
  check_route(logits, token_mask, options);
  const auto mask = cpu_mask(token_mask);
  const bool* real = mask.defined() ? read<bool>(mask) : nullptr;
  const int64_t tokens = logits.size(0), num_experts = logits.size(1);
  const int64_t loss_group_size = options.loss_group_size > 0 ? options.loss_group_size : options.group_size;
  const auto statistics = token_statistics(logits, options.router_score);

  at::Tensor choice, used, weight;
  Assignment assignment;
  if (options.router == RouterKind::kExpertChoice) {
    assignment = assign_experts_choice(statistics.score.cpu(), real, options);
    weight = at::zeros({(tokens + loss_group_size - 1) / loss_group_size, num_experts}, at::kDouble);
  } else {
    choice = choose(logits, statistics, options);
    const bool needs_score = options.num_selected_experts > 1 || options.drop_priority != DropPriority::kChoice;
    const auto score = needs_score ? statistics.score.cpu().gather(1, choice) : at::Tensor();
    used = apply_second_policy(choice, score, options);
    assignment = assign_choices({used, score}, num_experts, real, options);
    weight = balance_weight(choice, real, num_experts, loss_group_size, options);
  }

  const int64_t step_real = options.step_real_tokens > 0 ? options.step_real_tokens : count_real(real, tokens);
  auto outputs =
      router_outputs(logits, statistics,
                     {.assignment = assignment,
                      .choice = choice,
                      .mask = mask,
                      .balance_weight = weight,
                      .loss_group_size = loss_group_size,
                      .num_real = static_cast<double>(std::max<int64_t>(1, step_real))},
                     options.router_score, choice.defined() ? options.gate_normalization : GateNormalization::kNone);
  Routing routing;
  routing.gate = outputs.gate;
  routing.load_balance_loss = outputs.load_balance_loss;
  routing.router_z_loss = outputs.router_z_loss;
  routing.importance_loss = outputs.importance_loss;
  const auto index = best_experts(assignment, routing.gate, tokens);
  // A rerouted token did not ask for all its choices: what counts is where it wanted to go first.
  const bool reroutes = options.router == RouterKind::kNoTokenLeftBehind;
  routing.counts = count_choices(assignment, reroutes ? choice.narrow(1, 0, 1).contiguous() : used, index, real);
  auto* sum = write<double>(routing.counts.sums);
  sum[RoutingCounts::kEntropy] = sum_over_real(statistics.entropy, mask);
  sum[RoutingCounts::kConfidence] =
      sum_over_real(statistics.probability.cpu().gather(1, statistics.best.unsqueeze(1)).squeeze(1), mask);
  sum[RoutingCounts::kSquaredLogPartition] = sum_over_real(statistics.log_partition.to(at::kDouble).square(), mask);
  routing.counts.sums.narrow(0, RoutingCounts::kNumSums + num_experts, num_experts).copy_(outputs.importance);
  routing.counts.sums = routing.counts.sums.to(logits.device());
  routing.expert_index = index.to(logits.device());
  routing.dispatch = dispatch_of(assignment, options);
  return routing;
}

Routing route_to(const at::Tensor& expert, int64_t num_experts, const at::Tensor& token_mask,
                 const RouteOptions& options, at::ScalarType dtype) {
  SY_CHECK(expert.dim() == 1 && expert.scalar_type() == at::kLong, "route_to: expected expert [tokens] i64, got ",
           expert.toString(), " ", expert.sizes());
  SY_CHECK(options.drop_priority == DropPriority::kChoice || options.drop_priority == DropPriority::kToken,
           "route_to: there are no probabilities to give slots by; expected priority kChoice or kToken");
  check_groups(expert.size(0), token_mask, options);
  const auto mask = cpu_mask(token_mask);
  const bool* real = mask.defined() ? read<bool>(mask) : nullptr;
  const auto choice = expert.cpu().unsqueeze(1).contiguous();
  for (int64_t token = 0; token < choice.numel(); ++token)
    SY_CHECK(read<int64_t>(choice)[token] >= 0 && read<int64_t>(choice)[token] < num_experts, "route_to: token ", token,
             " goes to expert ", read<int64_t>(choice)[token], " of ", num_experts);
  auto assignment = assign_choices({choice, {}}, num_experts, real, options);
  Routing routing;
  const auto wide = expert.options().dtype(dtype);
  routing.gate = at::ones({assignment.token.size(0)}, wide);
  routing.load_balance_loss = routing.router_z_loss = routing.importance_loss = at::zeros({}, wide);
  routing.expert_index = best_experts(assignment, routing.gate, expert.size(0));
  routing.counts = count_choices(assignment, choice, routing.expert_index, real);
  routing.expert_index = routing.expert_index.to(expert.device());
  routing.counts.sums = routing.counts.sums.to(expert.device());
  routing.dispatch = dispatch_of(assignment, options);
  return routing;
}

at::Tensor load_loss(const at::Tensor& logits, const at::Tensor& token_mask, int64_t num_selected_experts,
                     double noise_std) {
  SY_CHECK(noise_std > 0.0, "load_loss: noise_std ", noise_std, " is not positive");
  SY_CHECK(num_selected_experts >= 1 && num_selected_experts <= logits.size(1), "load_loss: ", num_selected_experts,
           " choices among ", logits.size(1), " experts");
  // The k-th best logit is what an expert has to reach; it is a constant of the comparison's noise (V-MoE).
  const auto threshold = std::get<0>(logits.topk(num_selected_experts, 1)).narrow(1, num_selected_experts - 1, 1);
  const auto probability = 0.5 * (at::erf((logits - threshold) * (1.0 / (noise_std * std::numbers::sqrt2))) + 1.0);
  const auto load = token_mask.defined() ? (probability * token_mask.to(probability.options()).unsqueeze(1)).sum(0)
                                         : probability.sum(0);
  const auto mean = load.mean();
  return ((load - mean) * (load - mean)).mean() / (mean * mean + 1e-10);
}

at::Tensor experts_of_tokens(const Routing& routing, int64_t tokens, int64_t width) {
  struct Pair {
    double gate;
    int64_t expert;
  };
  std::vector<std::vector<Pair>> pairs(static_cast<size_t>(tokens));
  const auto gates = routing.gate.detach().to(at::kDouble).cpu().contiguous();
  int64_t row = 0;
  const auto num_rows = routing.dispatch.rows_by_expert();
  for (size_t expert = 0; expert < num_rows.size(); ++expert)
    for (int64_t n = 0; n < num_rows[expert]; ++n, ++row)
      pairs[static_cast<size_t>(read<int64_t>(routing.dispatch.token)[row])].push_back(
          {read<double>(gates)[row], static_cast<int64_t>(expert)});
  auto result = at::full({tokens, width}, -1, at::kLong);
  for (int64_t token = 0; token < tokens; ++token) {
    auto& list = pairs[static_cast<size_t>(token)];
    std::stable_sort(list.begin(), list.end(), [](const Pair& a, const Pair& b) { return a.gate > b.gate; });
    for (size_t n = 0; n < std::min(list.size(), static_cast<size_t>(width)); ++n)
      write<int64_t>(result)[token * width + static_cast<int64_t>(n)] = list[n].expert;
  }
  return result;
}

}  // namespace switchyard::ops
