// switchyard convert: from T5X, PyTorch or Hugging Face files to a model directory; other dtype, other shards, more
// experts.
#include <cinttypes>
#include <cstdio>
#include <memory>
#include <optional>

#include "base/config.h"
#include "base/error.h"
#include "checkpoint/checkpoint_store.h"
#include "checkpoint/gguf_header.h"
#include "checkpoint/gguf_model.h"
#include "checkpoint/model_directory.h"
#include "checkpoint/t5x.h"
#include "checkpoint/tokenizer_files.h"
#include "checkpoint/upcycle.h"
#include "cli/commands.h"
#include "cli/gguf_vocabulary.h"
#include "text/vocabulary.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

struct ConvertCommand {
  std::string from, to, dtype, vocab, max_shard_size = "5GB";
  int64_t upcycle_experts = 0, sparse_step = 2, seed = 0;
  bool json = false;
};

at::ScalarType storage_dtype(const std::string& name) {
  if (name == "int8") return at::kChar;
  if (name == "int4") return at::kByte;
  return name == "bf16" ? at::kBFloat16 : name == "fp16" ? at::kHalf : at::kFloat;
}

// Of values in memory that are to be stored so.
at::ScalarType working_dtype(at::ScalarType storage) { return c10::isFloatingType(storage) ? storage : at::kFloat; }

const char* dtype_name(at::ScalarType dtype) {
  if (dtype == at::kChar) return "int8";
  if (dtype == at::kByte) return "int4";
  return dtype == at::kBFloat16 ? "bf16" : dtype == at::kHalf ? "fp16" : "fp32";
}

// "500MB", "5GB", "1GiB" or plain bytes.
uint64_t parse_bytes(const std::string& text) {
  const std::pair<const char*, double> units[] = {{"KiB", 1024.0}, {"MiB", 1048576.0}, {"GiB", 1073741824.0},
                                                  {"KB", 1e3},     {"MB", 1e6},        {"GB", 1e9},
                                                  {"B", 1.0},      {"", 1.0}};
  for (const auto& [unit, factor] : units) {
    if (!text.ends_with(unit)) continue;
    const std::string number = text.substr(0, text.size() - std::string(unit).size());
    char* end = nullptr;
    const double value = std::strtod(number.c_str(), &end);
    if (number.empty() || *end != '\0' || !(value * factor >= 1 && value * factor < 1e18)) break;
    return static_cast<uint64_t>(value * factor);
  }
  throw Error(join("--max-shard-size is \"", text, "\", expected a size such as 500MB, 5GB or 2GiB"));
}

struct Source {
  std::optional<ModelFiles> files;   // a model directory, whose tensors pass through one by one
  std::optional<LoadedModel> model;  // another checkpoint
  at::ScalarType dtype;
  std::string vocabulary, tokenizer_json, format;
};

bool writes_gguf(const ConvertCommand& command) { return command.to.ends_with(".gguf"); }

// A model directory's tensors keep their type where none is asked for.
at::ScalarType dtype_as_stored(const ConvertCommand& command, const ModelFiles& files) {
  for (const auto& [name, tensor] : files.tensors)
    if (command.dtype.empty() && tensor.rows) return writes_gguf(command) ? at::kBFloat16 : tensor.rows->dtype;
  const auto shared = files.tensors.find("shared.weight");
  const bool is_half =
      shared != files.tensors.end() && (shared->second.dtype == at::kBFloat16 || shared->second.dtype == at::kHalf);
  return command.dtype.empty() && is_half ? shared->second.dtype : storage_dtype(command.dtype);
}

Source open_source(const ConvertCommand& command) {
  const fs::path from = command.from;
  SY_CHECK(fs::exists(from) || command.from.ends_with("@best"), command.from,
           " does not exist; expected a model directory, a run's folder or a T5X checkpoint");
  Source source;
  if (!fs::exists(from / "config.json") && is_t5x_checkpoint(from)) {
    source.format = "T5X";
    source.dtype = storage_dtype(command.dtype);
    source.model = import_t5x(from, working_dtype(source.dtype));
  } else if (is_gguf(from)) {
    auto gguf = open_gguf(from);
    source.format = "GGUF";
    source.dtype = dtype_as_stored(command, gguf.files);
    source.files = std::move(gguf.files);
    source.vocabulary = sentencepiece_model_of(gguf.vocabulary, command.from);
  } else {
    const auto folder = resolve_model_folder(from);
    source.format = "Hugging Face";
    source.files = open_files(folder);
    source.dtype = dtype_as_stored(command, *source.files);
    source.vocabulary = read_vocabulary(folder);
    source.tokenizer_json = read_tokenizer_file(folder);
    if (source.vocabulary.empty() && !source.tokenizer_json.empty())
      source.vocabulary = Vocabulary::load(folder).model_bytes();
  }
  if (!command.vocab.empty()) {
    const auto vocabulary = Vocabulary::load(command.vocab);
    const auto& config = source.model ? source.model->config : source.files->config;
    const int32_t num_pieces = vocabulary.size() - vocabulary.num_sentinels();
    SY_CHECK(num_pieces <= config.vocab_size, command.vocab, ": ", num_pieces, " pieces, but the embedding of ",
             command.from, " has ", config.vocab_size, " rows; use the vocabulary that this model was trained with");
    source.vocabulary = vocabulary.model_bytes();
    source.tokenizer_json.clear();
  }
  return source;
}

void write_gguf(const Source& source, const std::string& to) {
  const auto& config = source.model ? source.model->config : source.files->config;
  write_gguf(to, config, source.model ? parameter_values(*source.model) : parameter_values(*source.files), source.dtype,
             gguf_vocabulary(source.vocabulary, config.vocab_size));
}

void convert(const ConvertCommand& command) {
  const uint64_t max_shard_bytes = parse_bytes(command.max_shard_size);
  SY_CHECK(!fs::exists(writes_gguf(command) ? fs::path(command.to) : fs::path(command.to) / "config.json"), command.to,
           " already holds a model; remove it or choose another name");
  Source source = open_source(command);
  if (command.upcycle_experts > 0) {
    if (!source.model) source.model = open_model(source.files->folder, working_dtype(source.dtype));
    source.model = upcycle(*source.model, {.num_experts = command.upcycle_experts,
                                           .sparse_step = command.sparse_step,
                                           .seed = static_cast<uint64_t>(command.seed)});
  }
  const SaveOptions options{.dtype = source.dtype,
                            .max_shard_bytes = max_shard_bytes,
                            .vocabulary = source.vocabulary,
                            .tokenizer_json = source.tokenizer_json};
  SY_CHECK(!writes_gguf(command) || c10::isFloatingType(source.dtype), command.to, ": a GGUF file is written in fp32, ",
           "bf16 or fp16, not ", command.dtype, "; write it and quantise it by llama.cpp's tools");
  if (writes_gguf(command))
    write_gguf(source, command.to);
  else if (source.model)
    save_model(command.to, source.model->config, source.model->weights, options);
  else
    save_model(command.to, *source.files, options);
  const ModelConfig& config = source.model ? source.model->config : source.files->config;
  int64_t parameters = 0;
  for (const auto& spec : parameter_specs(config)) parameters += spec.numel();
  if (command.json) {
    const Json json = {{"from", command.from},
                       {"format", source.format},
                       {"to", command.to},
                       {"parameters", parameters},
                       {"dtype", dtype_name(source.dtype)},
                       {"num_experts", config.routing.num_experts},
                       {"vocabulary", !source.vocabulary.empty()}};
    std::printf("%s\n", json.dump().c_str());
    return;
  }
  std::fprintf(stderr, "%s (%s) -> %s: %" PRId64 " parameters in %s%s\n", command.from.c_str(), source.format.c_str(),
               command.to.c_str(), parameters, dtype_name(source.dtype),
               source.vocabulary.empty() ? "; no spiece.model: give one with --vocab to encode text" : "");
}

}  // namespace

void add_convert(CLI::App& app) {
  auto command = std::make_shared<ConvertCommand>();
  auto* convert_app = app.add_subcommand(
      "convert",
      "Write a model directory from another model: T5X checkpoint, PyTorch .bin, GGUF, other dtype or shards, dense to "
      "sparse; or a GGUF file, where --to ends in .gguf\n"
      "Example: switchyard convert --from checkpoint_500100 --to switch-base-8 --dtype bf16 --vocab spiece.model");
  convert_app->add_option("--from", command->from, "model directory, run folder, T5X checkpoint or GGUF file of T5")
      ->required();
  convert_app->add_option("--to", command->to, "folder to write, or a file NAME.gguf")->required();
  convert_app->add_option("--dtype", command->dtype, "fp32, bf16, fp16, int8 or int4; default: as stored")
      ->check(CLI::IsMember({"fp32", "bf16", "fp16", "int8", "int4"}));
  convert_app->add_option("--max-shard-size", command->max_shard_size, "largest file, such as 500MB")
      ->capture_default_str();
  convert_app->add_option("--vocab", command->vocab, "spiece.model to put beside the weights")
      ->check(CLI::ExistingFile);
  convert_app
      ->add_option("--upcycle-experts", command->upcycle_experts,
                   "make a dense model sparse, with this many experts a layer")
      ->check(CLI::Range(2, 1 << 20));
  convert_app
      ->add_option("--sparse-step", command->sparse_step, "with --upcycle-experts: every n-th feed-forward layer")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  convert_app->add_option("--seed", command->seed, "with --upcycle-experts: seed of the routers")
      ->check(CLI::NonNegativeNumber);
  convert_app->add_flag("--json", command->json, "print one JSON object");
  convert_app->callback([command] { convert(*command); });
}

}  // namespace switchyard
