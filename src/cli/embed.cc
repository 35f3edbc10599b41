// switchyard embed: the encoder's states of texts, for programs that take a T5 encoder as their reader of text.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <memory>
#include <optional>

#include "base/clock.h"
#include "base/error.h"
#include "base/messages.h"
#include "base/progress.h"
#include "checkpoint/checkpoint_store.h"
#include "checkpoint/model_directory.h"
#include "checkpoint/safetensors.h"
#include "cli/codec.h"
#include "cli/commands.h"
#include "cli/compute_options.h"
#include "cli/expert_memory.h"
#include "generate/prompt.h"
#include "serve/inquiries.h"

namespace switchyard {
namespace {

struct EmbedCommand {
  std::string model, input = "-", output, pool = "none", compare;
  bool ids = false, json = false;
  int64_t max_length = 0;  // 0: none
  ComputeOptions compute;

  bool of_each_token() const { return pool == "none"; }
};

// Without padding, which has no states.
int64_t tokens_of(const std::vector<int32_t>& ids) {
  return static_cast<int64_t>(ids.size()) - std::count(ids.begin(), ids.end(), 0);
}

// Lines of text as ids, and how many were cut.
struct Texts {
  std::vector<std::vector<int32_t>> ids;
  int64_t cut = 0;
};

Texts read_texts(const EmbedCommand& command) {
  const Codec codec(command.model, command.ids);
  std::ifstream file;
  if (command.input != "-") file.open(command.input, std::ios::binary);
  std::istream& lines = command.input == "-" ? std::cin : file;
  const std::string name = command.input == "-" ? "standard input" : command.input;
  SY_CHECK(lines.good(), "--input ", command.input, ": cannot be read; expected a file of texts, one a line");
  Texts texts;
  for (std::string line; std::getline(lines, line);) {
    if (line.ends_with('\r')) line.pop_back();
    auto ids = codec.encode_with_eos(line, join(name, ":", texts.ids.size() + 1));
    if (command.max_length > 0 && static_cast<int64_t>(ids.size()) > command.max_length) {
      const int32_t last = ids.back();
      ids.resize(static_cast<size_t>(command.max_length));
      if (!command.ids) ids.back() = last;  // EOS stays
      ++texts.cut;
    }
    texts.ids.push_back(std::move(ids));
  }
  SY_CHECK(!lines.bad(), name, ": reading failed behind line ", texts.ids.size());
  SY_CHECK(!texts.ids.empty(), name, " has no line; expected texts, one a line");
  return texts;
}

// An encoder, and what is asked of it.
class Encoder {
 public:
  Encoder(const EmbedCommand& command, const std::string& folder, const std::string& dtype)
      : of_each_token_(command.of_each_token()),
        dtype_(dtype_of(dtype)),
        model_(open_for_inference(folder, dtype_, device_of(command.compute),
                                  folder == command.model ? command.compute.expert_memory : std::nullopt)) {}

  at::ScalarType dtype() const { return dtype_; }
  int64_t d_model() const { return model_.config.d_model; }
  const InferenceModel& model() const { return model_; }

  // Throws Error, naming the line, for ids that it does not take.
  void check(const Texts& texts) const {
    for (size_t number = 0; number < texts.ids.size(); ++number)
      named(number, [&] { check_prompt(texts.ids[number], model_.config.vocab_size); });
  }

  // [tokens, d_model], or pooled [d_model]. f32
  at::Tensor states(const Texts& texts, size_t number) const {
    const at::NoGradGuard no_grad;
    at::Tensor result;
    named(number, [&] {
      result = embed(model_.config, model_.weights,
                     {.inputs = {texts.ids[number]}, .of_each_token = of_each_token_, .base64 = false})
                   .at(0);
    });
    return result;
  }

 private:
  // An error of `work` begins with the line.
  template <class Work>
  static void named(size_t number, Work&& work) {
    try {
      work();
    } catch (const Error& error) {
      throw Error(join("line ", number + 1, ": ", error.what()));
    }
  }

  bool of_each_token_;
  at::ScalarType dtype_;
  InferenceModel model_;
};

constexpr const char* kPooled = "embeddings";

// Texts one by one, with their progress.
class EachText {
 public:
  EachText(const std::string& name, size_t count)
      : progress_({.name = name, .unit = "texts"}, static_cast<double>(count)) {}
  void is_done(size_t number) { progress_.update(static_cast<double>(number + 1), ""); }

 private:
  Progress progress_;
};

// Of each token: computed as they are written, so that no more than one text's states are in memory.
void write_states(const EmbedCommand& command, const Encoder& encoder, const Texts& texts) {
  const auto each = std::make_shared<EachText>("embed", texts.ids.size());
  const auto shape_only = [&](const std::vector<int64_t>& shape) {
    return at::empty(shape, at::TensorOptions().dtype(encoder.dtype()).device(at::kMeta));
  };
  std::vector<TensorToWrite> tensors;
  if (command.of_each_token()) {
    for (size_t number = 0; number < texts.ids.size(); ++number)
      tensors.push_back({std::to_string(number + 1), shape_only({tokens_of(texts.ids[number]), encoder.d_model()}),
                         encoder.dtype(), [&, number] {
                           auto states = encoder.states(texts, number);
                           each->is_done(number);
                           return states;
                         }});
  } else {
    tensors.push_back(
        {kPooled, shape_only({static_cast<int64_t>(texts.ids.size()), encoder.d_model()}), encoder.dtype(), [&] {
           std::vector<at::Tensor> rows;
           for (size_t number = 0; number < texts.ids.size(); ++number) {
             rows.push_back(encoder.states(texts, number));
             each->is_done(number);
           }
           return at::stack(rows);
         }});
  }
  write_safetensors(command.output, std::move(tensors));
}

// How near the written states are to another model's.
struct Likeness {
  double mean = 0.0, worst = 2.0;
  size_t worst_line = 0;
  int64_t worst_token = 0;  // from 0
};

Likeness compare(const EmbedCommand& command, const Encoder& reference, const Texts& texts) {
  const auto written = list_safetensors(command.output);
  const auto pooled = command.of_each_token() ? at::Tensor() : read_tensor(written.at(kPooled), at::kFloat);
  EachText each("compare with " + command.compare, texts.ids.size());
  Likeness likeness;
  int64_t count = 0;
  for (size_t number = 0; number < texts.ids.size(); ++number) {
    const auto expected = reference.states(texts, number).to(at::kDouble).reshape({-1, reference.d_model()});
    const auto actual = (pooled.defined() ? pooled[static_cast<int64_t>(number)]
                                          : read_tensor(written.at(std::to_string(number + 1)), at::kFloat))
                            .to(at::kDouble)
                            .reshape({-1, reference.d_model()});
    const auto cosine = ((expected * actual).sum(1) / (expected.norm(2, {1}) * actual.norm(2, {1}))).contiguous();
    for (int64_t token = 0; token < cosine.numel(); ++token, ++count) {
      const double value = cosine.const_data_ptr<double>()[token];
      likeness.mean += value;
      if (value < likeness.worst) likeness = {likeness.mean, value, number + 1, token};
    }
    each.is_done(number);
  }
  likeness.mean /= static_cast<double>(count);
  return likeness;
}

void print(const Json& result, bool json) {
  if (json) {
    std::cout << result.dump() << std::endl;
    return;
  }
  for (const auto& [name, value] : result.items())
    std::cout << name << std::string(20 - std::min<size_t>(18, name.size()), ' ')
              << (value.is_string() ? value.get<std::string>() : value.dump()) << '\n';
}

void run(EmbedCommand& command) {
  command.model = resolve_model_folder(command.model).string();
  apply(command.compute);
  const auto texts = read_texts(command);
  int64_t tokens = 0;
  for (const auto& ids : texts.ids) tokens += tokens_of(ids);
  Json result = {{"texts", texts.ids.size()}, {"tokens", tokens}, {"output", command.output}};
  if (texts.cut > 0) result["cut"] = texts.cut;
  {
    const Encoder encoder(command, command.model, command.compute.dtype.empty() ? "auto" : command.compute.dtype);
    encoder.check(texts);
    const double start = steady_seconds();
    write_states(command, encoder, texts);
    const double seconds = steady_seconds() - start;
    result["d_model"] = encoder.d_model();
    result["seconds"] = seconds;
    result["tokens_per_second"] = static_cast<double>(tokens) / seconds;
    if (const auto limit = command.compute.expert_memory)
      result["expert_memory"] = expert_memory_json(encoder.model().experts->reads(), *limit);
  }
  // The first model's memory is free by now: in f32 the other may need all that there is.
  if (!command.compare.empty()) {
    const Encoder reference(command, resolve_model_folder(command.compare).string(), "fp32");
    SY_CHECK(reference.d_model() == result["d_model"].get<int64_t>(), "--compare ", command.compare,
             ": its states have ", reference.d_model(), " features, those of ", command.model, " ",
             result["d_model"].dump());
    const auto likeness = compare(command, reference, texts);
    result["cosine_mean"] = likeness.mean;
    result["cosine_worst"] = likeness.worst;
    result["worst_line"] = likeness.worst_line;
    if (command.of_each_token()) result["worst_token"] = likeness.worst_token;
  }
  print(result, command.json);
}

}  // namespace

void add_embed(CLI::App& app) {
  auto command = std::make_shared<EmbedCommand>();
  auto* embed = app.add_subcommand(
      "embed",
      "Write the encoder's states of texts, one a line, as safetensors. Models that are an encoder alone will do.\n"
      "Each text passes the encoder by itself, EOS at its end, so that its states depend on no other line. A tensor's\n"
      "name is its line's number, from 1, and its shape [tokens, d_model]; with --pool mean there is one, embeddings\n"
      "[lines, d_model]. Values are stored in the precision of the pass.");
  embed->add_option("--model", command->model, "model directory, or a run's folder for its newest checkpoint")
      ->required();
  embed->add_option("--input", command->input, "texts, one a line; -: standard input")->capture_default_str();
  embed->add_option("--output", command->output, "safetensors to write")->required();
  embed->add_option("--pool", command->pool, "none: the states of every token; mean: of a text their mean")
      ->check(CLI::IsMember({"none", "mean"}))
      ->capture_default_str();
  embed
      ->add_option("--max-length", command->max_length,
                   "most tokens of a text, EOS included; longer ones are cut; 0: any")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  embed->add_flag("--ids", command->ids, "lines are token ids separated by spaces, taken as given: no EOS is added");
  embed->add_option(
      "--compare", command->compare,
      "another form of the model, such as the one that was quantised, or the same for this precision "
      "alone: it computes in fp32, and the cosine of each token's states with its own is told, their mean "
      "and the worst");
  embed->add_flag("--json", command->json, "print one JSON object: texts, tokens, seconds, cosine_mean, ...");
  add_compute_options(*embed, command->compute);
  add_expert_memory(*embed, command->compute);
  embed->footer(
      "Examples:\n  switchyard embed --model t5-xxl-encoder-int8 --input prompts.txt --output states.safetensors\n"
      "  switchyard embed --model t5-xxl-encoder-int8 --compare t5-xxl-encoder --input prompts.txt --output "
      "states.safetensors --json");
  embed->callback([command] { run(*command); });
}

}  // namespace switchyard
