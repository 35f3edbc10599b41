#include "model/transformer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros_like.h>

#include <array>
#include <cmath>

#include "base/error.h"
#include "model/decoder_cache.h"
#include "model/routing.h"
#include "ops/attention.h"
#include "ops/cross_entropy.h"
#include "ops/experts.h"
#include "ops/layers.h"

namespace switchyard {
namespace {

// Places within a block that draw dropout noise; part of the exact-resume contract.
enum class Place : uint32_t {
  kEmbedding,
  kSelfAttention,
  kSelfOutput,
  kCrossAttention,
  kCrossOutput,
  kHidden,
  kFeedForward,
  kFinal
};

// Everything that one stack's layers share during a forward pass.
struct StackPass {
  const ModelConfig& config;
  const StackWeights& weights;
  at::ScalarType dtype;
  bool is_decoder;
  const ForwardOptions& options;
  at::Tensor ids;             // [batch, length]
  at::Tensor mask;            // [batch, length] bool or undefined: the stack's own real positions
  at::Tensor position_bias;   // by distance, of the present self-attention layer
  at::Tensor encoder_hidden;  // decoder over whole sequences
  at::Tensor encoder_mask;
  CachedRows* cached = nullptr;  // decoding step by step
  std::vector<SparseLayer> sparse_layers = {};

  double dropout_rate() const { return options.training ? config.dropout_rate : 0.0; }

  NoiseKey key(NoisePurpose purpose, size_t block, Place place) const {
    const auto layer = static_cast<uint32_t>((is_decoder ? 1u << 20 : 0u) + block * 16) + static_cast<uint32_t>(place);
    return {options.seed, purpose, static_cast<uint64_t>(options.step), layer};
  }

  at::Tensor dropout(const at::Tensor& x, size_t block, Place place) const {
    return ops::dropout(x, dropout_rate(), key(NoisePurpose::kDropout, block, place), options.first_example);
  }
};

// Dropout of attention probabilities with one mask per (example, head, key), shared by all queries (Mesh broadcasts
// over the query axis): the same as scaling the values, so the attention kernel needs no noise.
at::Tensor drop_values(const StackPass& pass, const at::Tensor& values, size_t block, Place place) {
  if (pass.dropout_rate() == 0.0) return values;
  const int64_t batch = values.size(0), length = values.size(1), heads = pass.config.num_heads;
  const auto mask = pass.dropout(at::ones({batch, 1, length * heads}, values.options()), block, place);
  return (values.view({batch, length, heads, pass.config.d_kv}) * mask.view({batch, length, heads, 1}))
      .view(values.sizes());
}

// Routes normed [batch, length, d_model] through `router` and records what it did.
const ops::Routing& route(StackPass& pass, const at::Tensor& normed, const RouterWeights& router, int64_t num_experts,
                          size_t block, Place place) {
  const bool is_attention = place == Place::kSelfAttention;
  auto routed =
      route_layer(pass.config.routing, router,
                  {.x = normed.reshape({-1, pass.config.d_model}),
                   .ids = pass.ids,
                   .mask = pass.mask,
                   .num_experts = num_experts,
                   .is_decoder = pass.is_decoder,
                   .training = pass.options.training,
                   .drop_tokens = pass.options.drop_tokens,
                   .first_example = pass.options.first_example,
                   .encoder_length = pass.encoder_hidden.defined() ? pass.encoder_hidden.size(1) : pass.ids.size(1),
                   .step_sequences = pass.options.step_totals.sequences,
                   .step_real_tokens = pass.is_decoder ? pass.options.step_totals.decoder_tokens
                                                       : pass.options.step_totals.encoder_tokens,
                   .noise = pass.key(NoisePurpose::kRouterJitter, block, place)});
  pass.sparse_layers.push_back(
      {(pass.is_decoder ? "decoder." : "encoder.") + std::to_string(block) + (is_attention ? ".attention" : ""),
       std::move(routed.router_logits), std::move(routed.routing), std::move(routed.load_loss)});
  return pass.sparse_layers.back().routing;
}

// Queries, keys and values of a self-attention, dense or by experts. [batch, length, heads * d_kv] in pass.dtype
std::array<at::Tensor, 3> self_projections(StackPass& pass, const at::Tensor& x, size_t block) {
  const auto& block_weights = pass.weights.blocks[block];
  const auto& weights = block_weights.self_attention;
  // Switch attention computes in its experts' dtype, which the casts of the weights chose.
  const auto normed =
      ops::rms_norm(x, block_weights.self_attention_norm, pass.config.layer_norm_epsilon, weights.q.scalar_type());
  if (!weights.is_sparse())
    return {ops::linear(normed, weights.q), ops::linear(normed, weights.k), ops::linear(normed, weights.v)};
  const auto& routing = route(pass, normed, weights.router, weights.q.size(0), block, Place::kSelfAttention);
  const auto tokens = normed.reshape({-1, pass.config.d_model});
  const auto by_experts = [&](const at::Tensor& weight) {
    return ops::experts_linear(tokens, routing.gate, routing.dispatch, weight, pass.options.exchange)
        .view({x.size(0), x.size(1), -1})
        .to(pass.dtype);
  };
  return {by_experts(weights.q), by_experts(weights.k), by_experts(weights.v)};
}

at::Tensor self_attention(StackPass& pass, const at::Tensor& x, size_t block) {
  const auto& weights = pass.weights.blocks[block];
  auto [q, k, v] = self_projections(pass, x, block);
  v = drop_values(pass, v, block, Place::kSelfAttention);
  // A decoder's padding lies after its real positions, where causality hides it already.
  const auto key_mask = pass.is_decoder ? at::Tensor() : pass.mask;
  const auto mixed = pass.cached != nullptr
                         ? pass.cached->attend_self(block, q, k, v, pass.position_bias, pass.config.num_heads)
                         : ops::attention(q, k, v, pass.position_bias, key_mask,
                                          {.num_heads = pass.config.num_heads, .causal = pass.is_decoder});
  return ops::add_residual(x, pass.dropout(ops::linear(mixed, weights.self_attention.o), block, Place::kSelfOutput));
}

at::Tensor cross_attention(StackPass& pass, const at::Tensor& x, size_t block) {
  const auto& weights = pass.weights.blocks[block];
  const auto normed = ops::rms_norm(x, weights.cross_attention_norm, pass.config.layer_norm_epsilon, pass.dtype);
  const auto q = ops::linear(normed, weights.cross_attention.q);
  at::Tensor mixed;
  if (pass.cached != nullptr) {
    mixed = pass.cached->attend_encoder(block, q, pass.config.num_heads);
  } else {
    const auto k = ops::linear(pass.encoder_hidden, weights.cross_attention.k);
    const auto v =
        drop_values(pass, ops::linear(pass.encoder_hidden, weights.cross_attention.v), block, Place::kCrossAttention);
    mixed = ops::attention(q, k, v, /*bias_by_distance=*/{}, pass.encoder_mask, {.num_heads = pass.config.num_heads});
  }
  return ops::add_residual(x, pass.dropout(ops::linear(mixed, weights.cross_attention.o), block, Place::kCrossOutput));
}

at::Tensor switch_feed_forward(StackPass& pass, const at::Tensor& normed, size_t block) {
  const auto& weights = pass.weights.blocks[block].feed_forward;
  const auto& routing = route(pass, normed, weights.router, weights.wo.size(0), block, Place::kFeedForward);
  if (weights.want_experts) weights.want_experts(routing.dispatch.rows_by_expert());
  const auto output =
      ops::experts_feed_forward(normed.reshape({-1, pass.config.d_model}), routing.gate, routing.dispatch,
                                pass.config.gated ? weights.wi_0 : weights.wi, weights.wi_1, weights.wo,
                                {.activation = pass.config.activation,
                                 .dropout_rate = pass.options.training ? pass.config.expert_dropout_rate : 0.0,
                                 .key = pass.key(NoisePurpose::kExpertDropout, block, Place::kHidden)},
                                pass.options.exchange);
  return output.view(normed.sizes());
}

at::Tensor dense_feed_forward(const StackPass& pass, const at::Tensor& normed, size_t block, const at::Tensor& wi,
                              const at::Tensor& wi_0, const at::Tensor& wi_1, const at::Tensor& wo) {
  return ops::feed_forward(normed, pass.config.gated ? wi_0 : wi, wi_1, wo,
                           {.activation = pass.config.activation,
                            .hidden_dropout_rate = pass.dropout_rate(),
                            .key = pass.key(NoisePurpose::kDropout, block, Place::kHidden),
                            .first_example = pass.options.first_example});
}

at::Tensor feed_forward(StackPass& pass, const at::Tensor& x, size_t block) {
  const auto& weights = pass.weights.blocks[block];
  const auto normed = ops::rms_norm(x, weights.feed_forward_norm, pass.config.layer_norm_epsilon, pass.dtype);
  const auto& layer = weights.feed_forward;
  at::Tensor output;
  if (layer.is_sparse()) {
    output = switch_feed_forward(pass, normed, block);
    if (layer.shared_wo.defined())
      output = output + dense_feed_forward(pass, normed, block, layer.shared_wi, layer.shared_wi_0, layer.shared_wi_1,
                                           layer.shared_wo);
  } else {
    output = dense_feed_forward(pass, normed, block, layer.wi, layer.wi_0, layer.wi_1, layer.wo);
  }
  return ops::add_residual(x, pass.dropout(output, block, Place::kFeedForward));
}

StackOutput run_stack(StackPass& pass, const at::Tensor& embedding, const at::Tensor& ids) {
  const auto wide = pass.dtype == at::kDouble ? at::kDouble : at::kFloat;
  const size_t num_blocks = pass.weights.blocks.size();
  pass.ids = ids;
  // In decoding the table is that of the longest row.
  const int64_t query_offset = pass.cached != nullptr ? pass.cached->longest() - ids.size(1) : 0;
  const auto by_distance = [&](const at::Tensor& table) {
    return ops::relative_bias_by_distance(table, {.query_length = ids.size(1),
                                                  .key_length = ids.size(1) + query_offset,
                                                  .query_offset = query_offset,
                                                  .bidirectional = !pass.is_decoder,
                                                  .num_buckets = pass.config.relative_attention_num_buckets,
                                                  .max_distance = pass.config.relative_attention_max_distance});
  };
  pass.position_bias = by_distance(pass.weights.relative_attention_bias);
  const auto& table = pass.weights.embedding.defined() ? pass.weights.embedding : embedding;
  auto x = pass.dropout(ops::embedding(table, ids).to(wide), num_blocks, Place::kEmbedding);
  for (size_t block = 0; block < num_blocks; ++block) {
    if (const auto& own = pass.weights.blocks[block].relative_attention_bias; own.defined())
      pass.position_bias = by_distance(own);
    x = self_attention(pass, x, block);
    if (pass.is_decoder) x = cross_attention(pass, x, block);
    x = feed_forward(pass, x, block);
  }
  const auto normed = ops::rms_norm(x, pass.weights.final_norm, pass.config.layer_norm_epsilon, pass.dtype);
  return {pass.dropout(normed, num_blocks, Place::kFinal), std::move(pass.sparse_layers)};
}

void check_ids(const at::Tensor& ids, const at::Tensor& mask, const char* what) {
  SY_CHECK(ids.dim() == 2 && ids.scalar_type() == at::kLong && ids.numel() > 0, what,
           ": expected int64 [batch, length], got ", ids.toString(), " ", ids.sizes());
  SY_CHECK(!mask.defined() || (mask.sizes() == ids.sizes() && mask.scalar_type() == at::kBool), what,
           ": expected a bool mask of shape ", ids.sizes());
}

}  // namespace

at::ScalarType compute_dtype(const ParameterSpec& spec, at::ScalarType dtype) {
  return spec.is_wide && dtype != at::kDouble ? at::kFloat : dtype;
}

ComputeWeights cast_weights(const ModelConfig& config, const ModelWeights& weights, at::ScalarType dtype) {
  ModelWeights cast = weights;
  for (auto& [spec, tensor] : list_parameters(config, cast)) {
    // Input embeddings stay as they are: a look-up reads few of their rows.
    if (spec.role != Role::kEmbedding || dtype == at::kDouble) *tensor = tensor->to(compute_dtype(spec, dtype));
  }
  return {dtype,
          cast.shared,
          config.tie_output ? cast.shared.to(dtype) : cast.lm_head,
          config.scale_output ? 1.0 / std::sqrt(static_cast<double>(config.d_model)) : 1.0,
          std::move(cast.encoder),
          std::move(cast.decoder)};
}

StackOutput encode(const ModelConfig& config, const ComputeWeights& weights, const at::Tensor& ids,
                   const at::Tensor& mask, const ForwardOptions& options) {
  check_ids(ids, mask, "encoder input");
  StackPass pass{config, weights.encoder, weights.dtype, /*is_decoder=*/false, options, {}, mask, {}, {}, {}};
  return run_stack(pass, weights.embedding, ids);
}

StackOutput decode(const ModelConfig& config, const ComputeWeights& weights, const at::Tensor& ids,
                   const at::Tensor& mask, const at::Tensor& encoder_hidden, const at::Tensor& encoder_mask,
                   const ForwardOptions& options) {
  check_ids(ids, mask, "decoder input");
  SY_CHECK(encoder_hidden.size(0) == ids.size(0), "decoder input: ", ids.size(0), " rows, the encoder had ",
           encoder_hidden.size(0));
  StackPass pass{config, weights.decoder, weights.dtype, /*is_decoder=*/true, options, {}, mask,
                 {},     encoder_hidden,  encoder_mask};
  return run_stack(pass, weights.embedding, ids);
}

at::Tensor decode_step(const ModelConfig& config, const ComputeWeights& weights, DecoderCache& cache,
                       const std::vector<int64_t>& slots, const at::Tensor& ids) {
  const at::NoGradGuard no_grad;
  check_ids(ids, {}, "decoder input");
  SY_CHECK(static_cast<int64_t>(slots.size()) == ids.size(0), "decoder input: ", ids.size(0), " rows for ",
           slots.size(), " slots");
  const ForwardOptions options{.drop_tokens = false};
  CachedRows rows(cache, slots, ids.size(1));
  StackPass pass{config, weights.decoder, weights.dtype, /*is_decoder=*/true, options, {}, {}, {}, {}, {}, &rows};
  auto output = run_stack(pass, weights.embedding, ids);
  rows.advance();
  return output.hidden;
}

at::Tensor output_logits(const ComputeWeights& weights, const at::Tensor& hidden) {
  auto sizes = hidden.sizes().vec();
  sizes.back() = weights.output.size(0);
  return ops::vocabulary_logits(hidden.reshape({-1, hidden.size(-1)}), weights.output, weights.output_scale)
      .view(sizes);
}

at::Tensor shift_right(const at::Tensor& targets) {
  auto inputs = at::zeros_like(targets);
  inputs.slice(1, 1).copy_(targets.slice(1, 0, targets.size(1) - 1).clamp_min(0));
  return inputs;
}

}  // namespace switchyard
