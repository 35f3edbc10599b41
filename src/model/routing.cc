#include "model/routing.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/sign.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

namespace switchyard {
namespace {

ops::DropPriority drop_priority(const RoutingConfig& config, bool is_decoder) {
  if (is_decoder && config.causal_decoder) return ops::DropPriority::kToken;
  if (config.drop_priority == "token") return ops::DropPriority::kToken;
  if (is_decoder || config.drop_priority == "choice") return ops::DropPriority::kChoice;
  return config.drop_priority == "batch" ? ops::DropPriority::kBatch : ops::DropPriority::kExpert;
}

ops::RouteOptions route_options(const RoutingConfig& config, const RouterWeights& weights, const RoutedBatch& batch) {
  ops::RouteOptions options;
  const int64_t length = batch.ids.size(1), tokens = batch.ids.numel();
  const bool reroutes = config.router == "no_token_left_behind";
  if (reroutes) options.router = ops::RouterKind::kNoTokenLeftBehind;
  if (config.router == "expert_choice" && !batch.is_decoder) options.router = ops::RouterKind::kExpertChoice;
  if (config.router_score == "sigmoid") options.score = ops::RouterScore::kSigmoid;
  options.num_choices = std::min(batch.num_experts, reroutes ? config.num_reroute_stages : config.num_selected_experts);

  const bool drops = (batch.drop_tokens && config.drop_tokens) || options.router == ops::RouterKind::kExpertChoice;
  options.group_size = batch.drop_tokens ? routing_group_size(config, batch.num_experts, tokens, length) : tokens;
  for (int64_t start = 0; start < tokens; start += options.group_size) {
    const int64_t group_tokens = std::min(options.group_size, tokens - start);
    options.expert_capacity.push_back(drops ? expert_capacity(config, group_tokens, batch.training, batch.num_experts)
                                            : group_tokens);
  }
  if (config.load_balance_scope == "sequence") options.loss_group_size = length;
  if (config.load_balance_scope == "batch") options.loss_group_size = tokens;
  options.priority = drop_priority(config, batch.is_decoder);
  if (config.num_selected_experts > 1 && config.gate_normalization != "none")
    options.gate_normalization = config.gate_normalization == "before_drop" ? ops::GateNormalization::kBeforeDrop
                                                                            : ops::GateNormalization::kAfterDrop;
  if (config.second_expert_policy == "threshold") options.second_policy = ops::SecondPolicy::kThreshold;
  if (config.second_expert_policy == "sampled" && batch.training) options.second_policy = ops::SecondPolicy::kSampled;
  options.second_threshold = config.second_expert_threshold;
  if (config.load_balance_choices == "all") options.balance_choices = ops::BalanceChoices::kAll;
  if (config.load_balance_choices == "mean") options.balance_choices = ops::BalanceChoices::kMean;
  if (config.padding == "counted_in_load") options.padding = ops::PaddingRule::kCountedInLoad;
  options.selection_bias = weights.selection_bias;
  if (config.selection_dtype == "compute") options.selection_dtype = batch.x.scalar_type();
  if (config.exploration == "sample" && batch.training) options.sample_temperature = config.sample_temperature;
  options.noise = batch.noise;
  options.noise.purpose = NoisePurpose::kExploration;
  options.first_token = batch.first_example * length;
  return options;
}

ops::RouterInputNoise input_noise(const RoutingConfig& config, const RoutedBatch& batch) {
  ops::RouterInputNoise noise{.key = batch.noise, .first_token = batch.first_example * batch.ids.size(1)};
  noise.key.purpose =
      config.exploration == "input_dropout" ? NoisePurpose::kRouterDropout : NoisePurpose::kRouterJitter;
  if (batch.training && config.exploration == "jitter") noise.jitter = config.jitter_noise;
  if (batch.training && config.exploration == "input_dropout") noise.dropout = config.router_dropout_rate;
  return noise;
}

// A fixed random expert for each id, another one in each layer (Roller et al. 2021). [batch * length]
at::Tensor hashed_experts(const RoutedBatch& batch) {
  const auto ids = batch.ids.cpu().contiguous();
  auto experts = at::empty_like(ids);
  const auto* id = ids.const_data_ptr<int64_t>();
  auto* expert = experts.mutable_data_ptr<int64_t>();
  const NoiseKey key{.purpose = NoisePurpose::kHashRouting, .layer = batch.noise.layer};
  for (int64_t n = 0; n < ids.numel(); ++n)
    expert[n] = static_cast<int64_t>(
        NoiseStream(key, static_cast<uint64_t>(id[n])).below(static_cast<uint64_t>(batch.num_experts)));
  return experts.view({-1}).to(batch.ids.device());
}

}  // namespace

RoutedLayer route_layer(const RoutingConfig& config, const RouterWeights& weights, const RoutedBatch& batch) {
  const int64_t tokens = batch.ids.numel();
  const auto wide = batch.x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto mask = batch.mask.defined() && config.padding != "routed" ? batch.mask.reshape({tokens}) : at::Tensor();
  const auto options = route_options(config, weights, batch);
  if (config.router == "hash")
    return {at::zeros({tokens, batch.num_experts}, batch.x.options().dtype(wide)),
            ops::route_to(hashed_experts(batch), batch.num_experts, mask, options, wide),
            {}};
  const auto logits = ops::router_logits(batch.x, weights.weight, weights.bias, input_noise(config, batch));
  RoutedLayer result{logits, ops::route(logits, mask, options), {}};
  if (config.load_loss_coef > 0.0)
    result.load_loss = ops::load_loss(logits, mask, options.num_choices, 1.0 / static_cast<double>(batch.num_experts));
  return result;
}

void update_selection_bias_(at::Tensor& bias, const at::Tensor& load, double rate) {
  const at::NoGradGuard no_grad;
  bias.add_(at::sign(load.mean() - load).to(bias.options()), rate);
}

}  // namespace switchyard
