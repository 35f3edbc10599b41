// switchyard inspect: what a model is, from its files or from a preset's shapes; no weight is read or allocated.
#include <cinttypes>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "base/config.h"
#include "base/error.h"
#include "checkpoint/checkpoint_store.h"
#include "checkpoint/hf_config.h"
#include "checkpoint/model_directory.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/weight_names.h"
#include "cli/commands.h"
#include "cli/inspect_memory.h"
#include "cli/inspect_routing.h"
#include "model/flops.h"
#include "model/parameters.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

struct InspectCommand {
  std::string model;
  int64_t encoder_length = 512, decoder_length = 114;
  bool json = false, tensors = false;
};

// One line of the list: a tensor, or the equal tensors of all experts of a layer.
struct TensorLine {
  std::string name;
  std::vector<int64_t> shape;
  std::string dtype;
  int64_t count = 1;
};

struct Subject {
  ModelConfig config;
  std::string source;
  StoredTensors stored;  // empty for a preset
};

Subject find_subject(const std::string& model) {
  Subject subject;
  const auto names = preset_names();
  const bool is_path = fs::exists(model) || model.ends_with("@best");
  if (!is_path && std::find(names.begin(), names.end(), model) == names.end()) {
    SY_CHECK(model.find('/') == std::string::npos, "\"", model,
             "\" does not exist; expected a model directory, a run's folder, or a preset");
    throw Error(join("\"", model, "\" is neither a folder nor a preset", nearest_hint(model, names)));
  }
  if (!is_path) {
    subject.config = preset(model);
    subject.source = "preset " + model;
    return subject;
  }
  const auto folder = resolve_model_folder(model);
  subject.source = folder.string();
  auto files = open_files(folder);
  subject.config = files.config;
  subject.stored = std::move(files.tensors);
  return subject;
}

struct Counts {
  int64_t parameters = 0, expert_parameters = 0;
  int64_t active = 0;  // with the experts that one token takes in each sparse layer
};

Counts count(const std::vector<ParameterSpec>& specs, int64_t num_selected) {
  Counts counts;
  for (const auto& spec : specs) {
    counts.parameters += spec.numel();
    counts.active += spec.is_expert() ? spec.numel() / spec.shape[0] * num_selected : spec.numel();
    if (spec.is_expert()) counts.expert_parameters += spec.numel();
  }
  return counts;
}

// Every parameter in order; experts as one line of `count` equal tensors, or one by one.
std::vector<TensorLine> list_tensors(const Subject& subject, const std::vector<ParameterSpec>& specs,
                                     bool each_expert) {
  const auto dtype_of = [&](const std::string& name) {
    const auto found = subject.stored.find(name);
    if (found != subject.stored.end() && found->second.rows)
      return std::string(found->second.rows->dtype == at::kChar ? "INT8" : "INT4");
    return std::string(found == subject.stored.end() ? "F32" : safetensors_dtype_name(found->second.dtype));
  };
  std::vector<TensorLine> lines;
  for (const auto& spec : specs) {
    if (!spec.is_expert()) {
      lines.push_back({spec.name, spec.shape, dtype_of(spec.name)});
      continue;
    }
    const std::vector<int64_t> shape(spec.shape.begin() + 1, spec.shape.end());
    const int64_t num_experts = spec.shape[0];
    if (!each_expert) {
      auto name = expert_tensor_name(spec.name, 0);
      const std::string first = "expert_0.";
      name.replace(name.rfind(first), first.size(), join("expert_0..", num_experts - 1, "."));
      lines.push_back({name, shape, dtype_of(expert_tensor_name(spec.name, 0)), num_experts});
      continue;
    }
    for (int64_t expert = 0; expert < num_experts; ++expert) {
      const auto name = expert_tensor_name(spec.name, expert);
      lines.push_back({name, shape, dtype_of(name)});
    }
  }
  return lines;
}

// The blocks of a stack for which has_experts(block) holds: "1 3", or "none".
template <class HasExperts>
std::string describe_blocks(int64_t num_layers, HasExperts&& has_experts) {
  std::string text;
  for (int64_t block = 0; block < num_layers; ++block)
    if (has_experts(block)) text += (text.empty() ? "" : " ") + std::to_string(block);
  return text.empty() ? "none" : text;
}

std::string describe_layers(const ModelConfig& config, bool is_decoder) {
  return describe_blocks(is_decoder ? config.num_decoder_layers : config.num_encoder_layers, [&](int64_t block) {
    return is_decoder ? config.is_sparse_decoder_layer(block) : config.is_sparse_encoder_layer(block);
  });
}

std::string describe_attention(const ModelConfig& config, bool is_decoder) {
  return describe_blocks(is_decoder ? config.num_decoder_layers : config.num_encoder_layers,
                         [&](int64_t block) { return config.has_sparse_attention(is_decoder, block); });
}

std::vector<std::string> describe_model_routing(const ModelConfig& config) {
  if (!config.has_sparse_layers()) return {"dense: every token passes through every feed-forward layer"};
  auto words = describe_routing(config.routing);
  words.insert(words.begin() + 1, join("sparse blocks: encoder ", describe_layers(config, false), "; decoder ",
                                       describe_layers(config, true)));
  if (config.encoder_attention_sparse_step > 0 || config.decoder_attention_sparse_step > 0)
    words.push_back(join("experts make queries, keys and values in blocks: encoder ", describe_attention(config, false),
                         "; decoder ", describe_attention(config, true), "; in ",
                         config.attention_expert_dtype == PartDtype::kFp32 ? "fp32" : "the compute dtype"));
  for (const auto& [name, counts] :
       {std::pair{"encoder", config.encoder_num_experts}, std::pair{"decoder", config.decoder_num_experts}})
    if (!counts.empty()) words.push_back(join("experts of each sparse ", name, " layer: ", Json(counts).dump()));
  std::string beyond;
  for (const auto& part : beyond_hf(config)) beyond += (beyond.empty() ? "" : ", ") + part;
  if (!beyond.empty())
    words.push_back("transformers cannot compute: " + beyond + "; written under \"switchyard\" in config.json");
  return words;
}

// 619339008 as "619.3 M", with a unit to follow.
std::string short_number(double value) {
  const char* units[] = {"", "K", "M", "G", "T", "P"};
  size_t unit = 0;
  while (value >= 1000 && unit < 5) {
    value /= 1000;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof(text), unit == 0 ? "%.0f %s" : "%.4g %s", value, units[unit]);
  return text;
}

std::string shape_text(const std::vector<int64_t>& shape) { return Json(shape).dump(); }

void print_json(const InspectCommand& command, const Subject& subject, const Counts& counts, int64_t bytes,
                double flops, double router, const std::vector<TensorLine>& lines) {
  const double tokens = static_cast<double>(command.encoder_length + command.decoder_length);
  Json tensors = Json::array();
  for (const auto& line : lines) tensors.push_back({{"name", line.name}, {"shape", line.shape}, {"dtype", line.dtype}});
  const Json json = {{"model", command.model},
                     {"source", subject.source},
                     {"parameters", counts.parameters},
                     {"active_parameters", counts.active},
                     {"expert_parameters", counts.expert_parameters},
                     {"bytes", bytes},
                     {"encoder_length", command.encoder_length},
                     {"decoder_length", command.decoder_length},
                     {"flops_per_sequence", flops},
                     {"flops_per_token", flops / tokens},
                     {"router_flops_per_sequence", router},
                     {"routing", describe_model_routing(subject.config)},
                     {"config", fields_to_json(subject.config)},
                     {"tensors", tensors}};
  std::printf("%s\n", json.dump().c_str());
}

void print_text(const InspectCommand& command, const Subject& subject, const Counts& counts, int64_t bytes,
                double flops, double router, const std::vector<TensorLine>& lines) {
  const auto& config = subject.config;
  const double tokens = static_cast<double>(command.encoder_length + command.decoder_length);
  std::printf("%s\n\n", subject.source.c_str());
  std::printf("shape        %" PRId64 " + %" PRId64 " layers, d_model %" PRId64 ", d_ff %" PRId64 ", %" PRId64
              " heads of %" PRId64 ", vocabulary %" PRId64 ", %s%s, %s %soutput\n",
              config.num_encoder_layers, config.num_decoder_layers, config.d_model, config.d_ff, config.num_heads,
              config.d_kv, config.vocab_size, config.gated ? "gated " : "", to_word(config.activation),
              config.tie_output ? "tied" : "untied", config.scale_output ? "" : "unscaled ");
  std::printf("parameters   %" PRId64 " (%s), active per token %" PRId64 " (%s)\n", counts.parameters,
              short_number(static_cast<double>(counts.parameters)).c_str(), counts.active,
              short_number(static_cast<double>(counts.active)).c_str());
  std::printf("weights      %sB%s\n", short_number(static_cast<double>(bytes)).c_str(),
              subject.stored.empty() ? " in fp32, half of it in bf16" : " as stored");
  std::printf("forward      %sFLOP a sequence of %" PRId64 " + %" PRId64
              " tokens, %sFLOP a token; routers %sFLOP more a sequence\n",
              short_number(flops).c_str(), command.encoder_length, command.decoder_length,
              short_number(flops / tokens).c_str(), short_number(router).c_str());
  const char* title = "routing";
  for (const auto& words : describe_model_routing(config)) {
    std::printf("%-12s %s\n", title, words.c_str());
    title = "";
  }
  std::printf("\n");
  size_t width = 0;
  for (const auto& line : lines) width = std::max(width, line.name.size());
  for (const auto& line : lines) {
    const std::string times = line.count > 1 ? join(line.count, " x ") : "";
    std::printf("%-*s  %-4s %s%s\n", static_cast<int>(width), line.name.c_str(), line.dtype.c_str(), times.c_str(),
                shape_text(line.shape).c_str());
  }
}

void inspect(const InspectCommand& command) {
  const Subject subject = find_subject(command.model);
  const auto specs = parameter_specs(subject.config);
  const Counts counts = count(specs, subject.config.routing.num_selected_experts);
  int64_t bytes = subject.stored.empty() ? 4 * counts.parameters : 0;
  for (const auto& [name, tensor] : subject.stored) bytes += static_cast<int64_t>(tensor.nbytes());
  const double flops = forward_flops(subject.config, command.encoder_length, command.decoder_length);
  const double router = router_flops(subject.config, command.encoder_length, command.decoder_length);
  const auto lines = list_tensors(subject, specs, command.json || command.tensors);
  (command.json ? print_json : print_text)(command, subject, counts, bytes, flops, router, lines);
}

}  // namespace

void add_inspect(CLI::App& app) {
  auto command = std::make_shared<InspectCommand>();
  auto* inspect_app = app.add_subcommand("inspect",
                                         "Show a model's size, cost, routing and tensors\n"
                                         "Example: switchyard inspect switch-base-128\n"
                                         "         switchyard inspect --routing runs/mini --text held-out.txt\n"
                                         "         switchyard inspect --memory run.toml");
  auto routing = std::make_shared<InspectRouting>();
  auto* with_routing = inspect_app->add_flag("--routing", routing->enabled,
                                             "run the model on --text: which tokens each expert of each layer takes");
  inspect_app->add_option("--text", routing->text, "--routing: files or folders of text")->needs(with_routing);
  inspect_app->add_option("--html", routing->html, "--routing: also write a page with the text coloured by expert")
      ->needs(with_routing);
  inspect_app->add_option("--max-examples", routing->max_examples, "--routing: segments of the text; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  inspect_app->add_option("--typical", routing->num_typical, "--routing: tokens to list for each expert")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  add_compute_options(*inspect_app, routing->compute);
  auto memory = std::make_shared<InspectMemory>();
  auto* with_memory = inspect_app->add_flag(
      "--memory", memory->enabled, "what training a run file, a run's folder or a preset holds at its fullest moment");
  with_memory->excludes(with_routing);
  inspect_app->add_option("--set", memory->settings, "--memory: key=value, replaces one key of a run file")
      ->needs(with_memory);
  inspect_app->add_option("--batch", memory->batch, "--memory: sequences of a preset's step, all in one pass")
      ->check(CLI::Range(1, 1 << 20))
      ->needs(with_memory)
      ->capture_default_str();
  inspect_app->add_option("model", command->model, "model directory, run folder or preset name")->required();
  inspect_app->add_option("--encoder-length", command->encoder_length, "tokens of a sequence for FLOPs")
      ->check(CLI::Range(1, 1 << 24));
  inspect_app->add_option("--decoder-length", command->decoder_length, "target tokens of a sequence")
      ->check(CLI::Range(1, 1 << 24));
  inspect_app->add_flag("--tensors", command->tensors, "list experts one by one");
  inspect_app->add_flag("--json", command->json, "print one JSON object, with every tensor");
  inspect_app->callback([command, routing, memory] {
    if (memory->enabled) {
      memory->subject = command->model;
      memory->encoder_length = command->encoder_length;
      memory->decoder_length = command->decoder_length;
      memory->is_bf16 = routing->compute.dtype != "fp32";
      memory->json = command->json;
      return inspect_memory(*memory);
    }
    if (!routing->enabled) return inspect(*command);
    SY_CHECK(!routing->text.empty(), "inspect --routing needs --text: files or folders to run the model on");
    routing->model = command->model;
    routing->json = command->json;
    routing->encoder_length = command->encoder_length;
    inspect_routing(*routing);
  });
}

}  // namespace switchyard
