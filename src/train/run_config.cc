#include "train/run_config.h"

#include "checkpoint/checkpoint_store.h"
#include "checkpoint/inherit.h"
#include "checkpoint/model_directory.h"
#include "kernels/brgemm.h"
#include "model/parameters.h"

namespace switchyard {
namespace {

const std::vector<std::string> kSections = {"model", "routing", "data", "train", "optimizer", "distill", "parallel"};

bool has_key(const ConfigDocument& document, const std::string& section, const std::string& key) {
  return document.sections.contains(section) && document.sections.at(section).contains(key);
}

std::string string_at(const ConfigDocument& document, const std::string& section, const std::string& key) {
  std::string value;
  if (has_key(document, section, key))
    config_detail::read_value(document.sections.at(section).at(key), document.place(section + "." + key), value);
  return value;
}

// A key of routing may stand in [model] too. What --set says wins over the file; otherwise two values are a conflict.
ConfigDocument with_one_routing(ConfigDocument document) {
  for (const auto& key : field_names<RoutingConfig>()) {
    if (!has_key(document, "model", key) || !has_key(document, "routing", key)) continue;
    const std::string in_model = document.place("model." + key), in_routing = document.place("routing." + key);
    const bool model_by_option = in_model.starts_with("--set"), routing_by_option = in_routing.starts_with("--set");
    SY_CHECK(
        document.sections["model"][key] == document.sections["routing"][key] || model_by_option != routing_by_option,
        in_model, " = ", document.sections["model"][key].dump(), ", but ", in_routing, " = ",
        document.sections["routing"][key].dump(), "; keep one of them");
    document.sections[model_by_option ? "routing" : "model"].erase(key);
  }
  return document;
}

std::string from_folder(const std::string& path, const std::filesystem::path& folder) {
  return path.empty() || path == "-" || std::filesystem::path(path).is_absolute()
             ? path
             : (folder / path).lexically_normal().string();
}

void check_positive(int64_t value, const char* key) { SY_CHECK(value > 0, key, " = ", value, ": expected at least 1"); }

void check_mixture(const DataConfig& data) {
  for (size_t n = 0; n < data.mixture.size(); ++n) {
    const auto& entry = data.mixture[n];
    const std::string place = join("data.mixture, entry ", n + 1);
    SY_CHECK(entry.text.empty() != entry.task.empty(), place, ": expected text or task, one of them");
    SY_CHECK(!entry.each_file || (!entry.text.empty() && entry.name.empty()), place,
             ": each_file is for text without a name, as each of its files has one");
    SY_CHECK(entry.task.empty() || !entry.folder.empty() || !data.folder.empty(), place,
             ": folder is missing: name the folder that holds the folder of task ", entry.task);
    const bool takes_rates = data.mixture_rule == MixtureRule::kRates;
    SY_CHECK(!takes_rates || entry.rate > 0.0, place, ": rate = ", entry.rate,
             ", expected more than 0; or set data.mixture_rule to proportional or equal");
    SY_CHECK(takes_rates || entry.rate == 0.0, place, ": rate = ", entry.rate, ", but data.mixture_rule is ",
             to_word(data.mixture_rule), "; keep one of them");
  }
  SY_CHECK(data.mixture_maximum >= 0, "data.mixture_maximum = ", data.mixture_maximum, ": expected 0 (none) or more");
  SY_CHECK(data.mixture_temperature > 0.0, "data.mixture_temperature = ", data.mixture_temperature,
           ": expected more than 0");
}

void check_sources(const DataConfig& data) {
  const int given = (data.text.empty() ? 0 : 1) + (data.task.empty() ? 0 : 1) + (data.mixture.empty() ? 0 : 1);
  SY_CHECK(given > 0,
           "data.text is missing: list the files to train on, for example text = [\"book.txt\"], or name a task");
  SY_CHECK(given == 1, "data.text, data.task and data.mixture: keep one");
  SY_CHECK(data.task.empty() || !data.folder.empty(),
           "data.folder is missing: name the folder that holds the folder of task ", data.task);
  SY_CHECK(!data.pack || data.text.empty(),
           "data.pack = true: text fills its rows already; packing is for a task or a mixture");
  check_mixture(data);
  SY_CHECK(!data.eval_each_file || !data.eval_text.empty(), "data.eval_each_file wants files in data.eval_text");
}

void check_run(const RunConfig& run) {
  check_positive(run.train.steps, "train.steps");
  check_positive(run.train.batch_size, "train.batch_size");
  check_positive(run.train.log_every, "train.log_every");
  check_positive(run.data.encoder_length, "data.encoder_length");
  check_positive(run.train.keep_last, "train.keep_last");
  const auto& train = run.train;
  SY_CHECK(train.recompute_blocks >= 0, "train.recompute_blocks = ", train.recompute_blocks,
           ": expected 0 or how many blocks of each stack are computed again");
  SY_CHECK(train.micro_batch_size >= 0, "train.micro_batch_size = ", train.micro_batch_size,
           ": expected 0 (the whole batch) or more");
  SY_CHECK(train.dtype == "auto" || train.dtype == "bf16" || train.dtype == "fp32", "train.dtype = \"", train.dtype,
           "\": expected auto, bf16 or fp32");
  SY_CHECK(train.best_direction == "lower" || train.best_direction == "higher", "train.best_direction = \"",
           train.best_direction, "\": expected lower or higher");
  SY_CHECK(train.seed >= 0, "train.seed = ", train.seed, ": expected 0 or more");
  check_sources(run.data);
  SY_CHECK(train.lora_rank >= 0 && train.lora_alpha > 0.0, "train.lora_rank = ", train.lora_rank,
           ", train.lora_alpha = ", train.lora_alpha, ": expected 0 (none) or more, and more than 0");
  SY_CHECK(train.lora_rank == 0 || !run.init.empty(), "train.lora_rank = ", train.lora_rank,
           " adapts a model: name it in model.init");
  SY_CHECK(train.eval_task_examples >= 0, "train.eval_task_examples = ", train.eval_task_examples,
           ": expected 0 (all) or more");
  SY_CHECK(train.early_stopping_patience >= 0, "train.early_stopping_patience = ", train.early_stopping_patience,
           ": expected 0 (never) or more");
  SY_CHECK(run.data.eval_tasks.empty() || !run.data.folder.empty(),
           "data.folder is missing: name the folder that holds the folders of data.eval_tasks");
  const auto& distill = run.distill;
  SY_CHECK(distill.teacher_weight >= 0.0 && distill.teacher_weight <= 1.0,
           "distill.teacher_weight = ", distill.teacher_weight, ": expected 0 to 1");
  SY_CHECK(distill.temperature > 0.0, "distill.temperature = ", distill.temperature, ": expected more than 0");
  SY_CHECK(distill.cache_top_k >= 0, "distill.cache_top_k = ", distill.cache_top_k,
           ": expected 0 (the teacher runs beside its student) or more");
  SY_CHECK(!distill.teacher.empty() || distill.cache_top_k == 0, "distill.cache_top_k = ", distill.cache_top_k,
           " wants a teacher: set distill.teacher");
  SY_CHECK(distill.teacher.empty() || run.parallel.tensor.value_or(1) == 1, "parallel.tensor = ", *run.parallel.tensor,
           ": a student with a teacher has its vocabulary on one rank; set parallel.tensor = 1");
  SY_CHECK(!run.data.vocab.empty(), "data.vocab is missing: name a spiece.model; `switchyard vocab train` makes one");
  for (const auto& [axis, ranks] : {std::pair{"data", run.parallel.data}, std::pair{"expert", run.parallel.expert},
                                    std::pair{"tensor", run.parallel.tensor}})
    SY_CHECK(!ranks || *ranks >= 1, "parallel.", axis, " = ", *ranks, ": expected 1 or more, or \"auto\"");
  SY_CHECK(run.parallel.timeout_seconds > 0, "parallel.timeout_seconds = ", run.parallel.timeout_seconds,
           ": expected more than 0");
}

bool changes_tensors(const ModelConfig& stored, const std::string& key, const Json& value) {
  ConfigDocument document;
  document.sections["model"] = {{key, value}};
  ModelConfig changed = stored;
  read_section(changed, document, "model");
  try {
    validate(changed);
    return !first_difference(parameter_specs(changed), parameter_specs(stored)).empty();
  } catch (const Error&) {
    return true;  // possible only together with others
  }
}

// Keys over init change what a model does; which tensors it has is for its files to say.
void check_same_tensors(const RunConfig& run, const ModelConfig& stored) {
  validate(run.model);
  const auto difference = first_difference(parameter_specs(run.model), parameter_specs(stored));
  if (difference.empty()) return;
  std::string keys;
  const Json wanted = fields_to_json(run.model), there = fields_to_json(stored);
  for (const auto& [key, value] : wanted.items())
    if (value != there.at(key) && changes_tensors(stored, key, value))
      keys += join(keys.empty() ? "" : ", ", key, " = ", value.dump(), " (there ", there.at(key).dump(), ")");
  throw Error(join("[model] asks for other weights than init = \"", run.init, "\" holds: ", keys, ": ", difference,
                   "; leave these keys out, or make the model first: `switchyard convert --from ", run.init,
                   " --to DIR --upcycle-experts N` gives a dense model experts"));
}

}  // namespace

RunConfig resolve_run(const ConfigDocument& given, const std::filesystem::path& folder,
                      const std::optional<std::filesystem::path>& checkpoint) {
  const ConfigDocument document = with_one_routing(given);
  for (const auto& [section, values] : document.sections.items())
    SY_CHECK(std::find(kSections.begin(), kSections.end(), section) != kSections.end(), "unknown section [", section,
             "]", nearest_hint(section, kSections),
             "; known: [model], [routing], [data], [train], [optimizer], [distill], [parallel]");
  RunConfig run;
  run.preset = string_at(document, "model", "preset");
  run.init = from_folder(string_at(document, "model", "init"), folder);
  SY_CHECK(run.preset.empty() || run.init.empty(), "[model] has both preset and init: keep one");
  run.distill.teacher = from_folder(string_at(document, "distill", "teacher"), folder);
  if (!run.preset.empty()) run.model = preset(run.preset);
  if (run.preset.empty() && run.init.empty() && !run.distill.teacher.empty())
    run.model = dense_twin(open_config(resolve_model_folder(run.distill.teacher)));
  const auto init =
      run.init.empty() ? ModelConfig{} : open_config(checkpoint ? *checkpoint : resolve_model_folder(run.init));
  if (!run.init.empty()) run.model = init;
  for (const char* section : {"model", "routing"}) read_convention(run.model.routing, document, section);
  read_section(run.model, document, "model", {"preset", "init"});
  // T5's habit: a tied output is scaled, a head of its own is not.
  if (has_key(document, "model", "tie_output") && !has_key(document, "model", "scale_output"))
    run.model.scale_output = run.model.tie_output;
  read_section(run.model.routing, document, "routing");
  if (!run.init.empty()) check_same_tensors(run, init);
  read_section(run.data, document, "data");
  read_section(run.train, document, "train");
  read_section(run.optimizer, document, "optimizer");
  read_section(run.distill, document, "distill");
  read_section(run.parallel, document, "parallel");
  for (auto* path : {&run.distill.teacher, &run.distill.baseline, &run.distill.cache})
    *path = from_folder(*path, folder);
  if (run.data.vocab.empty()) run.data.vocab = run.distill.teacher;
  for (auto* paths : {&run.data.text, &run.data.eval_text})
    for (auto& path : *paths) path = from_folder(path, folder);
  run.data.vocab = from_folder(run.data.vocab, folder);
  run.data.cache = from_folder(run.data.cache, folder);
  run.data.folder = from_folder(run.data.folder, folder);
  if (run.data.task.ends_with(".toml")) run.data.task = from_folder(run.data.task, folder);
  for (auto& task : run.data.eval_tasks)
    if (task.ends_with(".toml")) task = from_folder(task, folder);
  for (auto& entry : run.data.mixture) {
    for (auto& path : entry.text) path = from_folder(path, folder);
    entry.folder = from_folder(entry.folder, folder);
    if (entry.task.ends_with(".toml")) entry.task = from_folder(entry.task, folder);
  }
  check_run(run);
  return run;
}

RunConfig read_run(const std::filesystem::path& file, const std::vector<std::string>& settings,
                   const std::optional<std::filesystem::path>& checkpoint) {
  auto document = read_toml(file);
  for (const auto& setting : settings) apply_setting(document, setting);
  return resolve_run(document, std::filesystem::absolute(file).parent_path(), checkpoint);
}

std::string resolved_dtype(const std::string& dtype) {
  if (dtype != "auto") return dtype;
  return kernels::brgemm_available_bf16() ? "bf16" : "fp32";
}

std::string run_to_toml(const RunConfig& run) {
  Json sections = Json::object();
  sections["model"] = Json::object();
  if (!run.preset.empty()) sections["model"]["preset"] = run.preset;
  if (!run.init.empty()) sections["model"]["init"] = run.init;
  sections["model"].update(fields_to_json(run.model));
  sections["data"] = fields_to_json(run.data);
  sections["train"] = fields_to_json(run.train);
  sections["optimizer"] = fields_to_json(run.optimizer);
  sections["distill"] = fields_to_json(run.distill);
  sections["parallel"] = fields_to_json(run.parallel);
  return write_toml(sections);
}

std::string describe_run_config() {
  std::string text = "A run file is TOML with these sections and keys (defaults shown):\n\n";
  text +=
      "[routing] takes the routing keys of [model], num_experts and on.\n\n[model]\n  preset = \"switch-mini-8\"       "
      "         # a known shape, or\n";
  text +=
      "  init = \"MODEL\"                          # a model directory to continue from; any key below overrides it\n";
  const std::string model = describe_fields<ModelConfig>("model");
  text += model.substr(model.find('\n') + 1) + "\n";
  text += describe_fields<DataConfig>("data") + "\n" + describe_fields<TrainConfig>("train") + "\n";
  text += describe_fields<OptimizerConfig>("optimizer") + "\n" + describe_fields<DistillConfig>("distill") + "\n" +
          describe_fields<ParallelConfig>("parallel");
  return text;
}

}  // namespace switchyard
