// Loss of span corruption on held-out text: the model's quality before any task (Switch §2.3: negative log perplexity).
#pragma once

#include <vector>

#include "data/batch.h"
#include "model/loss.h"
#include "model/routing_groups.h"

namespace switchyard {

// Rows [first, first + count) of the batch as tensors. Padding (id 0) is masked in the encoder; in the decoder it is
// neither routed nor counted in the loss. Masks stay undefined where nothing is padded, but for packed rows.
LossInput to_tensors(const Batch& batch, int64_t first, int64_t count, at::Device device = at::kCPU);

// What some batches hold of one part of a mixture, or of one of several held-out texts. All are sums over the batches.
struct PartResult {
  int64_t examples = 0;
  int64_t tokens = 0;  // inputs and targets, without padding
  int64_t labels = 0;
  double loss = 0.0;  // nats, over its labels
};

// Adds the examples of rows first, first + 1, ... of the batch to parts[batch.part[example]], which grows with them;
// token_losses: Loss's, of these rows. Nothing for a batch without parts.
void add_parts(const Batch& batch, int64_t first, const at::Tensor& token_losses, std::vector<PartResult>& parts);

struct TextLoss {
  double loss = 0.0;      // mean cross entropy, nats per target token (sentinels and EOS count, padding does not)
  int64_t tokens = 0;     // target tokens
  double accuracy = 0.0;  // share of target tokens that are the argmax
  double dropped_fraction = 0.0;  // mean over sparse layers
  std::vector<PartResult> parts;  // by Batch::part; empty where there are none
};

// Evaluation mode: no noise, no router or z losses, eval_capacity_factor. `next_batch(n)` gives batch n of
// `num_batches`: consecutive examples, whole groups in every batch but the last (evaluation_batch_size()), so that the
// figures do not depend on the batches' size.
template <class NextBatch>
TextLoss text_loss(const ModelConfig& config, const ComputeWeights& weights, int64_t num_batches,
                   NextBatch&& next_batch) {
  double sum = 0.0, dropped = 0.0;
  int64_t tokens = 0, correct = 0;
  std::vector<ops::RoutingCounts> layers;
  std::vector<PartResult> parts;
  for (int64_t n = 0; n < num_batches; ++n) {
    const Batch batch = next_batch(n);
    const StepTotals totals{.sequences = evaluation_sequences(config.routing, batch.encoder_length)};
    const Loss loss = compute_loss(config, weights, to_tensors(batch, 0, batch.batch_size, weights.output.device()),
                                   {.step_totals = totals}, {.step_labels = 1, .router_losses = false});
    sum += loss.cross_entropy.template item<double>();
    tokens += loss.num_labels;
    correct += loss.num_correct;
    add_parts(batch, 0, loss.token_losses, parts);
    size_t layer = 0;
    for (const auto* stack : {&loss.encoder, &loss.decoder})
      for (const auto& sparse : stack->sparse_layers) {
        if (layer == layers.size()) layers.emplace_back();
        layers[layer++] += sparse.routing.counts;
      }
  }
  for (const auto& counts : layers) dropped += ops::read_statistics(counts).dropped_fraction;
  const double count = static_cast<double>(tokens > 0 ? tokens : 1);
  return {sum / count, tokens, static_cast<double>(correct) / count,
          layers.empty() ? 0.0 : dropped / static_cast<double>(layers.size()), std::move(parts)};
}

}  // namespace switchyard
