#include "serve/inquiries.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/masked_select.h>
#include <ATen/ops/mean.h>

#include <algorithm>
#include <span>

#include "base/error.h"
#include "generate/prompt.h"

namespace switchyard {
namespace {

constexpr size_t kMostInputs = 256;

void check_keys(const Json& json, const std::vector<std::string>& known) {
  config_detail::check_keys(json, "request", known, [](const std::string& key) { return key.substr(0, 60); });
}

const Json& at(const Json& json, const std::string& key) {
  SY_CHECK(json.contains(key), key, " is missing");
  return json.at(key);
}

std::string read_word(const Json& json, const std::string& key, const std::string& first, const std::string& second) {
  if (!json.contains(key) || json.at(key).is_null()) return first;
  const auto& value = json.at(key);
  SY_CHECK(value == first || value == second, key, ": expected \"", first, "\" or \"", second, "\"");
  return value.get<std::string>();
}

std::vector<float> values_of(const at::Tensor& tensor) {
  const auto flat = tensor.contiguous();
  return {flat.const_data_ptr<float>(), flat.const_data_ptr<float>() + flat.numel()};
}

// Base64 (RFC 4648) of the values as they lie in memory.
std::string base64_of(const std::vector<float>& values) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const std::string_view bytes(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
  std::string text;
  for (size_t n = 0; n < bytes.size(); n += 3) {
    const size_t count = std::min<size_t>(3, bytes.size() - n);
    uint32_t bits = 0;
    for (size_t k = 0; k < 3; ++k) bits = bits << 8 | (k < count ? static_cast<unsigned char>(bytes[n + k]) : 0u);
    for (size_t k = 0; k < 4; ++k) text += k <= count ? kDigits[bits >> (18 - 6 * k) & 63] : '=';
  }
  return text;
}

Json tokens_json(std::span<const int32_t> ids, const Vocabulary& vocabulary) {
  Json tokens = Json::array();
  for (const int32_t id : ids) tokens.push_back({{"id", id}, {"piece", vocabulary.piece(id)}});
  return tokens;
}

Json layer_json(const SparseLayer& layer) {
  const auto& dispatch = layer.routing.dispatch;
  const int64_t num_experts = dispatch.num_experts(), tokens = layer.routing.expert_index.size(0);
  const auto table = ops::experts_of_tokens(layer.routing, tokens, num_experts).cpu().contiguous();
  const auto gate = layer.routing.gate.to(at::kCPU, at::kFloat).contiguous();
  const auto token = dispatch.token.cpu().contiguous();
  std::vector<float> gates(static_cast<size_t>(tokens), 0.0F);
  for (int64_t row = 0; row < token.numel(); ++row) {
    auto& largest = gates[static_cast<size_t>(token.const_data_ptr<int64_t>()[row])];
    largest = std::max(largest, gate.const_data_ptr<float>()[row]);
  }
  Json experts = Json::array();
  for (int64_t n = 0; n < tokens; ++n) {
    Json own = Json::array();
    const auto* row = table.const_data_ptr<int64_t>() + n * num_experts;
    for (int64_t place = 0; place < num_experts && row[place] >= 0; ++place) own.push_back(row[place]);
    experts.push_back(std::move(own));
  }
  return {{"layer", layer.name}, {"num_experts", num_experts}, {"experts", experts}, {"gates", gates}};
}

Json layers_json(const std::vector<SparseLayer>& layers) {
  Json json = Json::array();
  for (const auto& layer : layers) json.push_back(layer_json(layer));
  return json;
}

}  // namespace

Json read_object(const std::string& body) {
  auto json = parse_json(body, "the request's body");
  SY_CHECK(json.is_object(), "the request's body: expected an object, got ", json.type_name());
  return json;
}

Json tokenize(const std::string& body, const Vocabulary& vocabulary, const RequestLimits& limits) {
  const auto json = read_object(body);
  check_keys(json, {"content"});
  SY_CHECK(at(json, "content").is_string(), "content: expected a text");
  return {{"tokens", read_tokens(json.at("content"), "content", &vocabulary, limits, /*with_eos=*/false)}};
}

Json detokenize(const std::string& body, const Vocabulary& vocabulary, const RequestLimits& limits) {
  const auto json = read_object(body);
  check_keys(json, {"tokens"});
  SY_CHECK(at(json, "tokens").is_array(), "tokens: expected a list of ids");
  const auto ids = read_tokens(json.at("tokens"), "tokens", &vocabulary, limits, /*with_eos=*/false);
  for (const int32_t id : ids)
    SY_CHECK(id < vocabulary.size(), "tokens: ", id, " is no id of the vocabulary of ", vocabulary.size());
  return {{"content", vocabulary.decode(ids)}};
}

EmbeddingQuestion read_embedding_question(const std::string& body, const Vocabulary& vocabulary,
                                          const RequestLimits& limits) {
  const auto json = read_object(body);
  check_keys(json, {"input", "content", "model", "user", "encoding_format", "pooling"});
  SY_CHECK(json.contains("input") != json.contains("content"), "input is missing, or content is there as well");
  const std::string key = json.contains("input") ? "input" : "content";
  const auto& input = json.at(key);
  EmbeddingQuestion question{.inputs = {},
                             .of_each_token = read_word(json, "pooling", "mean", "none") == "none",
                             .base64 = read_word(json, "encoding_format", "float", "base64") == "base64"};
  const bool is_list = input.is_array() && !input.empty() && (input.front().is_string() || input.front().is_array());
  const auto inputs = is_list ? std::vector<Json>(input.begin(), input.end()) : std::vector<Json>{input};
  SY_CHECK(inputs.size() <= kMostInputs, key, ": ", inputs.size(), " texts; at most ", kMostInputs, " are taken");
  size_t tokens = 0;
  for (const auto& each : inputs) {
    question.inputs.push_back(read_tokens(each, key, &vocabulary, limits, /*with_eos=*/true));
    tokens += question.inputs.back().size();
    SY_CHECK(tokens <= limits.prompt_tokens, key, ": more than ", limits.prompt_tokens, " tokens in all");
  }
  return question;
}

std::vector<at::Tensor> embed(const ModelConfig& config, const ComputeWeights& weights,
                              const EmbeddingQuestion& question) {
  const at::NoGradGuard no_grad;
  for (const auto& ids : question.inputs) check_prompt(ids, config.vocab_size);
  std::vector<std::span<const int32_t>> prompts(question.inputs.begin(), question.inputs.end());
  std::vector<at::Tensor> vectors;
  for (const auto& [encoded, mask] : encode_prompts(config, weights, prompts)) {
    auto states = encoded.select(0, 0).to(at::kFloat);  // [length, d_model]
    if (mask.defined()) states = at::masked_select(states, mask.select(0, 0).unsqueeze(-1)).view({-1, states.size(1)});
    vectors.push_back((question.of_each_token ? states : states.mean(0)).cpu().contiguous());
  }
  return vectors;
}

Json openai_embeddings_json(const EmbeddingQuestion& question, const std::vector<at::Tensor>& vectors,
                            const std::string& model) {
  Json data = Json::array();
  size_t tokens = 0;
  for (size_t n = 0; n < vectors.size(); ++n) {
    const auto values = values_of(vectors[n]);
    data.push_back({{"object", "embedding"},
                    {"index", n},
                    {"embedding", question.base64 ? Json(base64_of(values)) : Json(values)}});
    tokens += question.inputs[n].size();
  }
  return {{"object", "list"},
          {"data", data},
          {"model", model},
          {"usage", {{"prompt_tokens", tokens}, {"total_tokens", tokens}}}};
}

Json embeddings_json(const std::vector<at::Tensor>& vectors) {
  Json answer = Json::array();
  for (size_t n = 0; n < vectors.size(); ++n) {
    Json rows = Json::array();
    const auto table = vectors[n].dim() == 1 ? vectors[n].unsqueeze(0) : vectors[n];
    for (int64_t row = 0; row < table.size(0); ++row) rows.push_back(values_of(table.select(0, row)));
    answer.push_back({{"index", n}, {"embedding", vectors[n].dim() == 1 ? rows.at(0) : rows}});
  }
  return answer;
}

RoutingQuestion read_routing_question(const std::string& body, const Vocabulary& vocabulary,
                                      const RequestLimits& limits) {
  const auto json = read_object(body);
  check_keys(json, {"content", "output"});
  RoutingQuestion question{read_tokens(at(json, "content"), "content", &vocabulary, limits, /*with_eos=*/true), {}};
  if (json.contains("output") && !json.at("output").is_null())
    question.output = read_tokens(json.at("output"), "output", &vocabulary, limits, /*with_eos=*/true);
  return question;
}

Json routing_json(const ModelConfig& config, const ComputeWeights& weights, const Vocabulary& vocabulary,
                  const RoutingQuestion& question) {
  const at::NoGradGuard no_grad;
  check_prompt(question.input, config.vocab_size);
  check_ids(question.output, config.vocab_size, "output");
  Json encoder_layers = Json::array();
  // Padding at the end does not pass the encoder.
  std::span<const int32_t> input = question.input;
  while (input.back() == 0) input = input.first(input.size() - 1);
  const auto encoded =
      encode_prompts(config, weights, {input}, [&](const auto& layers) { encoder_layers = layers_json(layers); });
  Json json = {{"encoder", {{"tokens", tokens_json(input, vocabulary)}, {"layers", encoder_layers}}}};
  if (question.output.empty()) return json;
  const auto inputs = shift_right(row_tensor(question.output, weights.output.device()));
  const auto decoded =
      decode(config, weights, {inputs}, encoded[0].hidden, {.mask = encoded[0].mask}, {.drop_tokens = false});
  std::vector<int32_t> read = {0};
  read.insert(read.end(), question.output.begin(), question.output.end() - 1);
  json["decoder"] = {{"tokens", tokens_json(read, vocabulary)}, {"layers", layers_json(decoded.sparse_layers)}};
  return json;
}

Json props_json(const Properties& properties, const ModelConfig& config, const Vocabulary& vocabulary) {
  Json stacks = Json::object();
  for (const bool decoder : {false, true}) {
    Json sparse = Json::array();
    const int64_t blocks = decoder ? config.num_decoder_layers : config.num_encoder_layers;
    for (int64_t block = 0; block < blocks; ++block)
      if (decoder ? config.is_sparse_decoder_layer(block) : config.is_sparse_encoder_layer(block))
        sparse.push_back({{"block", block}, {"num_experts", config.layer_num_experts(decoder, block)}});
    stacks[decoder ? "decoder" : "encoder"] = {{"layers", blocks}, {"sparse", sparse}};
  }
  return {{"model_path", properties.model},
          {"total_slots", properties.slots},
          {"default_generation_settings",
           {{"n_ctx", properties.max_length}, {"temperature", 0.0}, {"n_predict", SearchOptions{}.max_tokens}}},
          {"switchyard",
           {{"queue", properties.queue},
            {"max_tokens", properties.limits.max_tokens},
            {"prompt_bytes", properties.limits.prompt_bytes},
            {"prompt_tokens", properties.limits.prompt_tokens},
            {"vocabulary", vocabulary.size()},
            {"d_model", config.d_model},
            {"encoder", stacks.at("encoder")},
            {"decoder", stacks.at("decoder")},
            {"routing", config.has_sparse_layers() ? Json(describe_routing(config.routing)) : Json::array()}}}};
}

}  // namespace switchyard
