#include "model/routing.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/sign.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

namespace switchyard {
namespace {

// In a decoder nobody is preferred by probability, which would let a token see later ones.
DropPriority drop_priority(const RoutingConfig& config, bool is_decoder) {
  if (is_decoder && config.causal_decoder) return DropPriority::kToken;
  const bool by_probability =
      config.drop_priority == DropPriority::kBatch || config.drop_priority == DropPriority::kExpert;
  return is_decoder && by_probability ? DropPriority::kChoice : config.drop_priority;
}

ops::RouteOptions route_options(const RoutingConfig& config, const RouterWeights& weights, const RoutedBatch& batch) {
  const int64_t length = batch.ids.size(1), tokens = batch.ids.numel();
  const BatchShape step{.sequences = batch.step_sequences > 0 ? batch.step_sequences : batch.ids.size(0),
                        .encoder_length = batch.encoder_length};
  ops::RouteOptions options;
  options.router = config.router == RouterKind::kExpertChoice && batch.is_decoder ? RouterKind::kTopK : config.router;
  options.router_score = config.router_score;
  options.num_selected_experts =
      std::min(batch.num_experts, config.router == RouterKind::kNoTokenLeftBehind ? config.num_reroute_stages
                                                                                  : config.num_selected_experts);
  const bool drops = (batch.drop_tokens && config.drop_tokens) || options.router == RouterKind::kExpertChoice;
  options.group_size = batch.drop_tokens ? group_tokens(config, batch.num_experts, step, length) : length;
  for (int64_t start = 0; start < tokens; start += options.group_size) {
    const int64_t group_tokens = std::min(options.group_size, tokens - start);
    options.expert_capacity.push_back(drops ? expert_capacity(config, group_tokens, batch.training, batch.num_experts)
                                            : group_tokens);
  }
  if (config.load_balance_scope == LoadBalanceScope::kSequence) options.loss_group_size = length;
  if (config.load_balance_scope == LoadBalanceScope::kBatch) options.loss_group_size = tokens;
  options.drop_priority = drop_priority(config, batch.is_decoder);
  if (config.num_selected_experts > 1) options.gate_normalization = config.gate_normalization;
  if (config.second_expert_policy != SecondExpertPolicy::kSampled || batch.training)
    options.second_expert_policy = config.second_expert_policy;
  options.second_expert_threshold = config.second_expert_threshold;
  options.load_balance_choices = config.load_balance_choices;
  options.padding = config.padding;
  options.selection_bias = weights.selection_bias;
  if (config.selection_dtype == PartDtype::kCompute) options.selection_dtype = batch.x.scalar_type();
  if (config.exploration == Exploration::kSample && batch.training)
    options.sample_temperature = config.sample_temperature;
  options.noise = batch.noise;
  options.noise.purpose = NoisePurpose::kExploration;
  options.first_token = batch.first_example * length;
  options.number = batch.number;
  options.step_tokens = step.sequences * length;
  options.step_real_tokens = config.padding == PaddingRule::kRouted ? options.step_tokens : batch.step_real_tokens;
  return options;
}

ops::RouterInputNoise input_noise(const RoutingConfig& config, const RoutedBatch& batch) {
  ops::RouterInputNoise noise{
      .key = batch.noise, .first_token = batch.first_example * batch.ids.size(1), .number = batch.number};
  noise.key.purpose =
      config.exploration == Exploration::kInputDropout ? NoisePurpose::kRouterDropout : NoisePurpose::kRouterJitter;
  if (batch.training && config.exploration == Exploration::kJitter) noise.jitter = config.jitter_noise;
  if (batch.training && config.exploration == Exploration::kInputDropout) noise.dropout = config.router_dropout_rate;
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
  const auto mask =
      batch.mask.defined() && config.padding != PaddingRule::kRouted ? batch.mask.reshape({tokens}) : at::Tensor();
  const auto options = route_options(config, weights, batch);
  if (config.router == RouterKind::kHash)
    return {at::zeros({tokens, batch.num_experts}, batch.x.options().dtype(wide)),
            ops::route_to(hashed_experts(batch), batch.num_experts, mask, options, wide),
            {}};
  const auto logits = ops::router_logits(batch.x, weights.weight, weights.bias, input_noise(config, batch));
  RoutedLayer result{logits, ops::route(logits, mask, options), {}};
  if (config.load_loss_coef > 0.0)
    result.load_loss =
        ops::load_loss(logits, mask, options.num_selected_experts, 1.0 / static_cast<double>(batch.num_experts));
  return result;
}

void update_selection_bias_(at::Tensor& bias, const at::Tensor& load, double rate) {
  const at::NoGradGuard no_grad;
  bias.add_(at::sign(load.mean() - load).to(bias.options()), rate);
}

}  // namespace switchyard
