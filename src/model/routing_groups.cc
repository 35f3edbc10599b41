#include "model/routing_groups.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"

namespace switchyard {
namespace {

// The fewest sequences of `length` after which a group of `group_tokens` ends, too.
int64_t sequences_to_boundary(int64_t group_tokens, int64_t length) {
  return group_tokens / std::gcd(group_tokens, length);
}

// Losses that are no sums over groups: a part of the batch does not have its part of them.
bool needs_whole_batch(const RoutingConfig& routing) {
  return (routing.load_balance_scope == LoadBalanceScope::kBatch && routing.load_balance_loss_coef > 0.0) ||
         routing.importance_loss_coef > 0.0 || routing.load_loss_coef > 0.0;
}

// The numbers of experts of the model's sparse layers.
std::vector<int64_t> expert_counts(const ModelConfig& config) {
  std::vector<int64_t> counts;
  for (const bool decoder : {false, true}) {
    const int64_t layers = decoder ? config.num_decoder_layers : config.num_encoder_layers;
    for (int64_t block = 0; block < layers; ++block) {
      const bool sparse = decoder ? config.is_sparse_decoder_layer(block) : config.is_sparse_encoder_layer(block);
      if (sparse) counts.push_back(config.layer_num_experts(decoder, block));
      if (config.has_sparse_attention(decoder, block)) counts.push_back(config.routing.num_experts);
    }
  }
  std::sort(counts.begin(), counts.end());
  counts.erase(std::unique(counts.begin(), counts.end()), counts.end());
  return counts;
}

}  // namespace

int64_t mesh_num_groups(int64_t group_size, int64_t tokens) {
  int64_t groups = std::max<int64_t>(1, tokens / group_size);
  while (tokens % groups != 0) ++groups;
  return groups;
}

int64_t t5x_num_groups(int64_t group_size, int64_t tokens, int64_t num_experts, int64_t num_replicas) {
  const int64_t multiple = num_experts * num_replicas;
  for (int64_t groups = std::max(tokens / group_size, multiple); groups <= tokens; ++groups)
    if (tokens % groups == 0 && groups % multiple == 0) return groups;
  return mesh_num_groups(group_size, tokens);
}

int64_t group_tokens(const RoutingConfig& routing, int64_t num_experts, const BatchShape& shape, int64_t length) {
  if (routing.group_size == 0) return length;
  const int64_t tokens = shape.sequences * length;
  if (routing.group_rule == GroupRule::kMesh) return tokens / mesh_num_groups(routing.group_size, tokens);
  if (routing.group_rule == GroupRule::kT5x) return tokens / t5x_num_groups(routing.group_size, tokens, num_experts, 1);
  return std::max<int64_t>(1, routing.group_size / shape.encoder_length) * length;
}

int64_t sequences_per_cut(const ModelConfig& config, const BatchShape& shape) {
  if (!config.has_sparse_layers()) return 1;
  if (needs_whole_batch(config.routing)) return shape.sequences;
  int64_t unit = 1;
  for (const int64_t num_experts : expert_counts(config))
    for (const int64_t length : {shape.encoder_length, shape.decoder_length})
      unit = std::lcm(unit, sequences_to_boundary(group_tokens(config.routing, num_experts, shape, length), length));
  return std::min(unit, shape.sequences);
}

void check_micro_batch(const ModelConfig& config, const BatchShape& shape, int64_t micro_batch_size) {
  if (micro_batch_size == 0 || micro_batch_size >= shape.sequences) return;
  const int64_t unit = sequences_per_cut(config, shape);
  if (micro_batch_size % unit == 0) return;
  std::string legal;
  for (int64_t size = unit; size < shape.sequences && legal.size() < 60; size += unit)
    legal += std::to_string(size) + ", ";
  throw Error(join("train.micro_batch_size = ", micro_batch_size, " would split a routing group: ",
                   needs_whole_batch(config.routing)
                       ? std::string("a balance, importance or load loss over the whole batch allows no parts")
                       : join(unit, " sequences of ", shape.encoder_length, " + ", shape.decoder_length,
                              " tokens are routed together (model.group_size = ", config.routing.group_size, ")"),
                   "; expected 0 (the whole batch)", legal.empty() ? "" : " or one of ",
                   legal.empty() ? "" : legal.substr(0, legal.size() - 2)));
}

int64_t evaluation_sequences(const RoutingConfig& routing, int64_t encoder_length) {
  if (routing.group_size == 0) return 1;
  if (routing.group_rule == GroupRule::kExact) return std::max<int64_t>(1, routing.group_size / encoder_length);
  return (routing.group_size + encoder_length - 1) / encoder_length;
}

int64_t evaluation_batch_size(const RoutingConfig& routing, int64_t encoder_length, int64_t requested) {
  const int64_t unit = routing.num_experts > 0 ? evaluation_sequences(routing, encoder_length) : 1;
  return (std::max<int64_t>(1, requested) + unit - 1) / unit * unit;
}

}  // namespace switchyard
