#include "cli/inspect_routing.h"

#include <ATen/core/grad_mode.h>

#include <cstdio>
#include <iostream>

#include "base/config.h"
#include "base/files.h"
#include "base/messages.h"
#include "base/progress.h"
#include "checkpoint/checkpoint_store.h"
#include "checkpoint/model_directory.h"
#include "cli/model_vocabulary.h"
#include "data/pretraining.h"
#include "data/token_store.h"
#include "eval/expert_usage.h"
#include "eval/text_loss.h"
#include "report/routing_page.h"

namespace switchyard {
namespace {

constexpr int64_t kShownTexts = 6;

// The first texts of a stack, token by token, as one layer routed them.
std::vector<std::vector<RoutingPage::Token>> shown_texts(const SparseLayer& layer, const at::Tensor& ids,
                                                         const at::Tensor& mask, const Vocabulary& vocabulary) {
  const int64_t length = ids.size(1), tokens = ids.numel();
  std::vector<double> gates(static_cast<size_t>(tokens), 0.0);
  const auto gate = layer.routing.gate.detach().to(at::kCPU, at::kDouble).contiguous();
  for (int64_t row = 0; row < gate.numel(); ++row) {
    auto& largest = gates[static_cast<size_t>(layer.routing.dispatch.token[row].item<int64_t>())];
    largest = std::max(largest, gate.const_data_ptr<double>()[row]);
  }
  std::vector<std::vector<RoutingPage::Token>> texts;
  for (int64_t text = 0; text < std::min(kShownTexts, ids.size(0)); ++text) {
    auto& shown = texts.emplace_back();
    for (int64_t n = text * length; n < (text + 1) * length; ++n) {
      if (mask.defined() && !mask.view({-1})[n].item<bool>()) continue;
      shown.push_back({vocabulary.piece(static_cast<int32_t>(ids.view({-1})[n].item<int64_t>())),
                       layer.routing.expert_index[n].item<int64_t>(), gates[static_cast<size_t>(n)]});
    }
  }
  return texts;
}

std::string summary_of(const LayerUse& layer) {
  char text[160];
  std::snprintf(
      text, sizeof text, "%lld tokens, %.2f%% without an expert, router entropy %.3f nats, confidence %.3f",
      static_cast<long long>(layer.tokens),
      100.0 * static_cast<double>(layer.left_behind) / static_cast<double>(std::max<int64_t>(1, layer.tokens)),
      layer.router_entropy, layer.router_confidence);
  return text;
}

Json to_json(const LayerUse& layer, const Vocabulary& vocabulary) {
  Json experts = Json::array();
  for (const auto& expert : layer.experts) {
    Json typical = Json::array();
    for (const auto& token : expert.typical)
      typical.push_back({{"id", token.id},
                         {"piece", vocabulary.piece(static_cast<int32_t>(token.id))},
                         {"count", token.count},
                         {"share", token.share}});
    experts.push_back(
        {{"tokens", expert.tokens}, {"load", expert.load}, {"mean_gate", expert.mean_gate}, {"typical", typical}});
  }
  return {{"layer", layer.name},
          {"tokens", layer.tokens},
          {"left_behind", layer.left_behind},
          {"router_entropy", layer.router_entropy},
          {"router_confidence", layer.router_confidence},
          {"experts", experts}};
}

void print_layer(const LayerUse& layer, const Vocabulary& vocabulary) {
  std::printf("%s: %s\n  expert   load   gate  typical tokens (share of their appearances)\n", layer.name.c_str(),
              summary_of(layer).c_str());
  for (size_t n = 0; n < layer.experts.size(); ++n) {
    const auto& expert = layer.experts[n];
    std::printf("  %6zu %5.1f%% %6.3f ", n, 100.0 * expert.load, expert.mean_gate);
    for (const auto& token : expert.typical)
      std::printf(" %s %.0f%%", vocabulary.piece(static_cast<int32_t>(token.id)).c_str(), 100.0 * token.share);
    std::printf("\n");
  }
  std::printf("\n");
}

}  // namespace

void inspect_routing(const InspectRouting& command) {
  apply(command.compute);
  const auto folder = resolve_model_folder(command.model).string();
  const auto model = open_for_inference(
      folder, dtype_of(command.compute.dtype.empty() ? "fp32" : command.compute.dtype), device_of(command.compute));
  SY_CHECK(model.config.has_sparse_layers(), folder, ": the model is dense; --routing shows sparse layers");
  const auto vocabulary = open_vocabulary(folder, model.config);
  const EvaluationData data(TokenStore::open({command.text.begin(), command.text.end()}, vocabulary, {}),
                            special_tokens(vocabulary),
                            {.shape = {.encoder_length = command.encoder_length},
                             .batch_size = evaluation_batch_size(model.config.routing, command.encoder_length, 8),
                             .max_examples = command.max_examples});
  RoutingPage page{.title = command.model, .semantics = describe_routing(model.config.routing), .layers = {}};
  ExpertUsage usage;
  const at::NoGradGuard no_grad;
  Progress progress({.name = "route", .unit = "batches"}, static_cast<double>(data.num_batches()));
  for (int64_t n = 0; n < data.num_batches(); ++n) {
    const auto batch = data.batch(n);
    const auto input = to_tensors(batch, 0, batch.batch_size, device_of(command.compute));
    const auto encoder = encode(model.config, model.weights, input.encoder, {});
    const auto decoder = decode(model.config, model.weights, input.decoder, encoder.hidden, input.encoder, {});
    usage.add(encoder, input.encoder.ids);
    usage.add(decoder, input.decoder.ids);
    progress.update(static_cast<double>(n + 1), "");
    if (n > 0 || command.html.empty()) continue;
    for (const auto& layer : encoder.sparse_layers)
      page.layers.push_back(
          {layer.name, "", {}, shown_texts(layer, input.encoder.ids, input.encoder.mask, vocabulary)});
    for (const auto& layer : decoder.sparse_layers)
      page.layers.push_back(
          {layer.name, "", {}, shown_texts(layer, input.decoder.ids, input.decoder.mask, vocabulary)});
  }
  progress.finish();

  const auto layers = usage.summarise(command.num_typical);
  Json json = Json::array();
  for (size_t n = 0; n < layers.size(); ++n) {
    if (command.json)
      json.push_back(to_json(layers[n], vocabulary));
    else
      print_layer(layers[n], vocabulary);
    if (command.html.empty()) continue;
    page.layers[n].summary = summary_of(layers[n]);
    for (const auto& expert : layers[n].experts) {
      RoutingPage::Expert shown{.load = expert.load, .mean_gate = expert.mean_gate, .typical = {}};
      for (const auto& token : expert.typical)
        shown.typical.push_back(vocabulary.piece(static_cast<int32_t>(token.id)));
      page.layers[n].experts.push_back(std::move(shown));
    }
  }
  if (!command.html.empty()) write_file_atomically(command.html, make_routing_page(page));
  if (command.json) std::cout << json.dump() << std::endl;
  if (!command.html.empty()) say("wrote ", command.html);
}

}  // namespace switchyard
