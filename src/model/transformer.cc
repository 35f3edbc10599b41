#include "model/transformer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/ones.h>

#include <memory>

#include "base/error.h"
#include "model/decoder_cache.h"
#include "model/fused_decoding.h"
#include "model/recompute.h"
#include "model/routing.h"
#include "ops/attention.h"
#include "ops/cross_entropy.h"
#include "ops/experts.h"
#include "ops/layers.h"
#include "ops/quantized.h"

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
  const ComputeWeights& model;
  const ComputeStack& weights;
  const ForwardOptions& options;
  const TokenLayout& tokens;
  bool is_decoder = false;
  at::Tensor encoder_hidden = {};  // decoder over whole sequences
  TokenLayout encoder_tokens = {};
  CachedRows* cached = nullptr;  // decoding step by step
  PackedNoise noise = packed_noise(tokens);
  PackedNoise encoder_noise = packed_noise(encoder_tokens);

  at::ScalarType dtype() const { return model.dtype; }
  // Heads whose part of the matrices is here.
  int64_t num_heads(const at::Tensor& o) const { return ops::inputs_of(o) / config.d_kv; }
  int64_t num_experts(size_t block) const { return config.layer_num_experts(is_decoder, static_cast<int64_t>(block)); }
  double dropout_rate() const { return options.training ? config.dropout_rate : 0.0; }
  int64_t encoder_length() const { return encoder_hidden.defined() ? encoder_hidden.size(1) : tokens.length(); }

  NoiseKey key(NoisePurpose purpose, size_t block, Place place) const {
    const auto layer = static_cast<uint32_t>((is_decoder ? 1u << 20 : 0u) + block * 16) + static_cast<uint32_t>(place);
    return {options.seed, purpose, static_cast<uint64_t>(options.step), layer};
  }

  at::Tensor dropout(const at::Tensor& x, size_t block, Place place) const {
    return ops::dropout(x, dropout_rate(), key(NoisePurpose::kDropout, block, place), options.first_example,
                        tokens.example);
  }
};

// What a block makes of its input: the residual stream behind it, and what its sparse layers did.
struct BlockOutput {
  at::Tensor x;  // [batch, length, d_model] f32 (f64)
  std::vector<SparseLayer> sparse_layers = {};
};

// Dropout of attention probabilities with one mask per (example, head, key), shared by all queries (Mesh broadcasts
// over the query axis): the same as scaling the values, so the attention kernel needs no noise.
at::Tensor drop_values(const StackPass& pass, const at::Tensor& values, const PackedNoise& noise, size_t block,
                       Place place) {
  if (pass.dropout_rate() == 0.0) return values;
  const int64_t batch = values.size(0), length = values.size(1), d_kv = pass.config.d_kv;
  const int64_t all_heads = pass.config.num_heads, heads = values.size(2) / d_kv;
  const int64_t first_head = ops::first_here(pass.model.split, all_heads * d_kv, d_kv) / d_kv;
  const bool packed = noise.number.defined();
  const int64_t examples = packed ? noise.num_examples : batch, positions = packed ? noise.longest : length;
  auto mask = ops::dropout(at::ones({examples, 1, positions * all_heads}, values.options()), pass.dropout_rate(),
                           pass.key(NoisePurpose::kDropout, block, place),
                           packed ? noise.first_example : pass.options.first_example);
  if (packed) mask = mask.view({-1, all_heads}).index_select(0, noise.place);
  mask = mask.view({batch, length, all_heads, 1}).narrow(2, first_head, heads);
  return (values.unflatten(2, {heads, d_kv}) * mask).view(values.sizes());
}

// Routes normed [batch, length, d_model] through `router`.
SparseLayer route(const StackPass& pass, const at::Tensor& normed, const RouterWeights& router, int64_t num_experts,
                  size_t block, Place place) {
  const auto& totals = pass.options.step_totals;
  auto routed = route_layer(pass.config.routing, router,
                            {.x = normed.reshape({-1, pass.config.d_model}),
                             .ids = pass.tokens.ids,
                             .mask = pass.tokens.mask,
                             .num_experts = num_experts,
                             .is_decoder = pass.is_decoder,
                             .training = pass.options.training,
                             .drop_tokens = pass.options.drop_tokens,
                             .first_example = pass.options.first_example,
                             .number = pass.noise.number,
                             .encoder_length = pass.encoder_length(),
                             .step_sequences = totals.sequences,
                             .step_real_tokens = pass.is_decoder ? totals.decoder_tokens : totals.encoder_tokens,
                             .noise = pass.key(NoisePurpose::kRouterJitter, block, place)});
  const std::string name = (pass.is_decoder ? "decoder." : "encoder.") + std::to_string(block);
  return {.name = place == Place::kSelfAttention ? name + ".attention" : name,
          .router_logits = std::move(routed.router_logits),
          .routing = std::move(routed.routing),
          .load_loss = std::move(routed.load_loss)};
}

// Queries, keys and values of a self-attention side by side, dense or by experts. [batch, length, 3 * heads * d_kv] in
// pass.dtype
at::Tensor self_projections(const StackPass& pass, BlockOutput& out, size_t block) {
  const auto& weights = pass.weights.blocks[block];
  const auto& qkv = weights.self_attention.qkv;
  // Switch attention computes in its experts' dtype, which the casts of the weights chose.
  const auto normed = ops::rms_norm(out.x, weights.self_attention_norm, pass.config.layer_norm_epsilon,
                                    ops::is_quantized(qkv) ? pass.dtype() : qkv.scalar_type());
  const auto* split = pass.model.split;
  const auto x = ops::to_parts(split, normed);
  if (!weights.self_attention.is_sparse()) return ops::linear(x, qkv);
  out.sparse_layers.push_back(route(pass, normed, weights.self_attention.router, pass.config.routing.num_experts, block,
                                    Place::kSelfAttention));
  const auto& routing = out.sparse_layers.back().routing;
  const auto projected = ops::experts_linear(x.reshape({-1, pass.config.d_model}), ops::to_parts(split, routing.gate),
                                             routing.dispatch, qkv, pass.model.exchange);
  return projected.view({normed.size(0), normed.size(1), -1}).to(pass.dtype());
}

void self_attention(const StackPass& pass, const at::Tensor& position_bias, size_t block, BlockOutput& out) {
  const auto& o = pass.weights.blocks[block].self_attention.o;
  const int64_t num_heads = pass.num_heads(o);
  const auto projections = self_projections(pass, out, block).chunk(3, 2);
  const auto &q = projections[0], &k = projections[1];
  const auto v = drop_values(pass, projections[2], pass.noise, block, Place::kSelfAttention);
  // A decoder's padding lies after its real positions, where causality hides it already; segments hide all padding.
  const auto& segment = pass.tokens.segment;
  const auto key_mask = pass.is_decoder || segment.defined() ? at::Tensor() : pass.tokens.mask;
  const auto mixed =
      pass.cached != nullptr
          ? pass.cached->attend_self(block, q, k, v, position_bias, num_heads)
          : ops::attention(q, k, v, position_bias, key_mask,
                           {.num_heads = num_heads, .causal = pass.is_decoder, .segments = {segment, segment}});
  const auto output = ops::sum_of_parts(pass.model.split, ops::linear(mixed, o));
  out.x = ops::add_residual(out.x, pass.dropout(output, block, Place::kSelfOutput));
}

void cross_attention(const StackPass& pass, size_t block, BlockOutput& out) {
  const auto& weights = pass.weights.blocks[block];
  const auto normed = ops::rms_norm(out.x, weights.cross_attention_norm, pass.config.layer_norm_epsilon, pass.dtype());
  const auto* split = pass.model.split;
  const int64_t num_heads = pass.num_heads(weights.cross_attention.o);
  const auto q = ops::linear(ops::to_parts(split, normed), weights.cross_attention.q);
  at::Tensor mixed;
  if (pass.cached != nullptr) {
    mixed = pass.cached->attend_encoder(block, q, num_heads);
  } else {
    const auto kv = ops::linear(ops::to_parts(split, pass.encoder_hidden), weights.cross_attention.kv).chunk(2, 2);
    const auto v = drop_values(pass, kv[1], pass.encoder_noise, block, Place::kCrossAttention);
    const auto& encoder = pass.encoder_tokens;
    mixed = ops::attention(q, kv[0], v, /*bias_by_distance=*/{}, encoder.is_packed() ? at::Tensor() : encoder.mask,
                           {.num_heads = num_heads, .segments = {pass.tokens.segment, encoder.segment}});
  }
  const auto output = ops::sum_of_parts(split, ops::linear(mixed, weights.cross_attention.o));
  out.x = ops::add_residual(out.x, pass.dropout(output, block, Place::kCrossOutput));
}

// Of the features that are here: their share of the layer's output. x [batch, length, d_model]
at::Tensor switch_feed_forward(const StackPass& pass, const at::Tensor& x, const ops::Routing& routing, size_t block) {
  const auto& layer = pass.weights.blocks[block].feed_forward;
  const auto output =
      ops::experts_feed_forward(x.reshape({-1, pass.config.d_model}), ops::to_parts(pass.model.split, routing.gate),
                                routing.dispatch, layer.experts.wi, layer.experts.wi_1, layer.experts.wo,
                                {.activation = pass.config.activation,
                                 .dropout_rate = pass.options.training ? pass.config.expert_dropout_rate : 0.0,
                                 .key = pass.key(NoisePurpose::kExpertDropout, block, Place::kHidden),
                                 .first_feature = ops::first_here(pass.model.split, pass.config.d_ff),
                                 .runs = layer.expert_runs ? &layer.expert_runs : nullptr,
                                 .packs_few = pass.options.packs_few},
                                pass.model.exchange);
  return output.view(x.sizes());
}

// The same of a dense network with `d_ff` hidden features in all.
at::Tensor dense_feed_forward(const StackPass& pass, const at::Tensor& x, int64_t d_ff, size_t block) {
  const auto& matrices = pass.weights.blocks[block].feed_forward.dense;
  return ops::feed_forward(x, matrices.wi, matrices.wi_1, matrices.wo,
                           {.activation = pass.config.activation,
                            .hidden_dropout_rate = pass.dropout_rate(),
                            .key = pass.key(NoisePurpose::kDropout, block, Place::kHidden),
                            .first_example = pass.options.first_example,
                            .first_feature = ops::first_here(pass.model.split, d_ff),
                            .example = pass.tokens.example});
}

void feed_forward(const StackPass& pass, size_t block, BlockOutput& out) {
  const auto& weights = pass.weights.blocks[block];
  const auto& layer = weights.feed_forward;
  const auto normed = ops::rms_norm(out.x, weights.feed_forward_norm, pass.config.layer_norm_epsilon, pass.dtype());
  const auto x = ops::to_parts(pass.model.split, normed);
  at::Tensor output;
  if (layer.is_sparse()) {
    out.sparse_layers.push_back(route(pass, normed, layer.router, pass.num_experts(block), block, Place::kFeedForward));
    output = switch_feed_forward(pass, x, out.sparse_layers.back().routing, block);
    if (layer.dense.wo.defined())  // the shared expert
      output = output + dense_feed_forward(pass, x, pass.config.routing.shared_expert_d_ff, block);
  } else {
    output = dense_feed_forward(pass, x, pass.config.d_ff, block);
  }
  output = ops::sum_of_parts(pass.model.split, output);
  out.x = ops::add_residual(out.x, pass.dropout(output, block, Place::kFeedForward));
}

// One block: a function of its input and the pass alone, so that it may be computed again.
BlockOutput run_block(const StackPass& pass, const at::Tensor& x, const at::Tensor& position_bias, size_t block) {
  BlockOutput out{x};
  self_attention(pass, position_bias, block, out);
  if (pass.is_decoder) cross_attention(pass, block, out);
  feed_forward(pass, block, out);
  return out;
}

// A pass that outlives what its caller gave it.
struct OwnPass {
  explicit OwnPass(const StackPass& from)
      : config(from.config),
        model(from.model),
        options(from.options),
        tokens(from.tokens),
        pass{.config = config,
             .model = model,
             .weights = from.is_decoder ? model.decoder : model.encoder,
             .options = options,
             .tokens = tokens,
             .is_decoder = from.is_decoder,
             .encoder_hidden = {},
             .encoder_tokens = from.encoder_tokens} {}
  OwnPass(const OwnPass&) = delete;
  const ModelConfig config;
  const ComputeWeights model;
  const ForwardOptions options;
  const TokenLayout tokens;
  const StackPass pass;
};

// What of a block's output a loss is made of.
std::vector<at::Tensor*> parts_of(BlockOutput& output) {
  std::vector<at::Tensor*> parts = {&output.x};
  for (auto& layer : output.sparse_layers)
    parts.insert(parts.end(), {&layer.router_logits, &layer.load_loss, &layer.routing.load_balance_loss,
                               &layer.routing.router_z_loss, &layer.routing.importance_loss});
  return parts;
}

BlockOutput run_block_twice(const std::shared_ptr<const OwnPass>& own, const at::Tensor& x,
                            const at::Tensor& position_bias, const at::Tensor& encoder_hidden, size_t block) {
  const auto first = std::make_shared<BlockOutput>();
  const auto run = [own, block, kept = std::weak_ptr(first)](const std::vector<at::Tensor>& inputs) {
    auto pass = own->pass;
    pass.encoder_hidden = inputs[2];
    auto output = run_block(pass, inputs[0], inputs[1], block);
    std::vector<at::Tensor> values;
    for (const auto* part : parts_of(output)) values.push_back(*part);
    if (const auto place = kept.lock()) *place = std::move(output);
    return values;
  };
  const auto values = recomputed(run, {x, position_bias, encoder_hidden});
  const auto parts = parts_of(*first);
  for (size_t n = 0; n < parts.size(); ++n) *parts[n] = values[n];
  return std::move(*first);
}

// The bias of a [num_buckets, heads] table by distance; in decoding that of the longest row.
at::Tensor bias_by_distance(const StackPass& pass, const at::Tensor& table) {
  const int64_t length = pass.tokens.length();
  const int64_t query_offset = pass.cached != nullptr ? pass.cached->longest() - length : 0;
  return ops::relative_bias_by_distance(table, {.query_length = length,
                                                .key_length = length + query_offset,
                                                .query_offset = query_offset,
                                                .bidirectional = !pass.is_decoder,
                                                .num_buckets = pass.config.relative_attention_num_buckets,
                                                .max_distance = pass.config.relative_attention_max_distance});
}

StackOutput run_stack(const StackPass& pass) {
  const auto wide = pass.dtype() == at::kDouble ? at::kDouble : at::kFloat;
  const size_t num_blocks = pass.weights.blocks.size();
  StackOutput output;
  auto position_bias = bias_by_distance(pass, pass.weights.relative_attention_bias);
  const auto embedded = ops::embedding(pass.weights.embedding, pass.tokens.ids, pass.model.vocabulary()).to(wide);
  auto x = pass.dropout(embedded, num_blocks, Place::kEmbedding);
  const bool has_gradient = at::GradMode::is_enabled() && x.requires_grad();
  const auto num_twice = static_cast<size_t>(has_gradient ? pass.options.recompute_blocks : 0);
  const auto again = num_twice > 0 ? std::make_shared<const OwnPass>(pass) : nullptr;
  for (size_t block = 0; block < num_blocks; ++block) {
    if (const auto& own = pass.weights.blocks[block].relative_attention_bias; own.defined())
      position_bias = bias_by_distance(pass, own);
    auto result = block < num_twice ? run_block_twice(again, x, position_bias, pass.encoder_hidden, block)
                                    : run_block(pass, x, position_bias, block);
    x = std::move(result.x);
    for (auto& layer : result.sparse_layers) output.sparse_layers.push_back(std::move(layer));
  }
  const auto normed = ops::rms_norm(x, pass.weights.final_norm, pass.config.layer_norm_epsilon, pass.dtype());
  output.hidden = pass.dropout(normed, num_blocks, Place::kFinal);
  return output;
}

}  // namespace

StackOutput encode(const ModelConfig& config, const ComputeWeights& weights, const TokenLayout& tokens,
                   const ForwardOptions& options) {
  check_layout(tokens, "encoder input");
  return run_stack(
      {.config = config, .model = weights, .weights = weights.encoder, .options = options, .tokens = tokens});
}

void check_decoder(const ModelConfig& config) {
  SY_CHECK(config.num_decoder_layers > 0,
           "the model is an encoder alone and has no decoder: it gives hidden states, but neither text nor scores");
}

StackOutput decode(const ModelConfig& config, const ComputeWeights& weights, const TokenLayout& tokens,
                   const at::Tensor& encoder_hidden, const TokenLayout& encoder_tokens, const ForwardOptions& options) {
  check_decoder(config);
  check_layout(tokens, "decoder input");
  SY_CHECK(encoder_hidden.size(0) == tokens.batch_size(), "decoder input: ", tokens.batch_size(),
           " rows, the encoder had ", encoder_hidden.size(0));
  SY_CHECK(tokens.is_packed() == encoder_tokens.is_packed(), "decoder input: rows are packed in ",
           tokens.is_packed() ? "the decoder" : "the encoder", " alone");
  return run_stack({.config = config,
                    .model = weights,
                    .weights = weights.decoder,
                    .options = options,
                    .tokens = tokens,
                    .is_decoder = true,
                    .encoder_hidden = encoder_hidden,
                    .encoder_tokens = encoder_tokens});
}

namespace {

at::Tensor decode_new(const ModelConfig& config, const ComputeWeights& weights, DecoderCache& cache,
                      const std::vector<int64_t>& slots, const at::Tensor& ids, std::vector<SparseLayer>* sparse_layers,
                      bool may_fuse) {
  const at::NoGradGuard no_grad;
  const TokenLayout tokens{ids};
  check_layout(tokens, "decoder input");
  SY_CHECK(static_cast<int64_t>(slots.size()) == ids.size(0), "decoder input: ", ids.size(0), " rows for ",
           slots.size(), " slots");
  const ForwardOptions options{.drop_tokens = false};
  CachedRows rows(cache, slots, ids.size(1));
  if (sparse_layers != nullptr) sparse_layers->clear();
  at::Tensor hidden;
  if (auto* fused = may_fuse ? rows.fused(config, weights) : nullptr) {
    hidden = fused->step(config, weights, rows, ids, sparse_layers);
  } else {
    auto output = run_stack({.config = config,
                             .model = weights,
                             .weights = weights.decoder,
                             .options = options,
                             .tokens = tokens,
                             .is_decoder = true,
                             .cached = &rows});
    if (sparse_layers != nullptr) *sparse_layers = std::move(output.sparse_layers);
    hidden = std::move(output.hidden);
  }
  rows.advance();
  return hidden;
}

}  // namespace

at::Tensor decode_step(const ModelConfig& config, const ComputeWeights& weights, DecoderCache& cache,
                       const std::vector<int64_t>& slots, const at::Tensor& ids,
                       std::vector<SparseLayer>* sparse_layers) {
  return decode_new(config, weights, cache, slots, ids, sparse_layers, /*may_fuse=*/true);
}

at::Tensor decode_step_by_operations(const ModelConfig& config, const ComputeWeights& weights, DecoderCache& cache,
                                     const std::vector<int64_t>& slots, const at::Tensor& ids,
                                     std::vector<SparseLayer>* sparse_layers) {
  return decode_new(config, weights, cache, slots, ids, sparse_layers, /*may_fuse=*/false);
}

at::Tensor output_logits(const ComputeWeights& weights, const at::Tensor& hidden) {
  auto sizes = hidden.sizes().vec();
  sizes.back() = weights.vocab_size;
  return ops::vocabulary_logits(hidden.reshape({-1, hidden.size(-1)}), weights.output, weights.output_scale,
                                weights.vocabulary())
      .view(sizes);
}

}  // namespace switchyard
