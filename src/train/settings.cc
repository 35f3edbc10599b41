#include "train/settings.h"

#include <algorithm>

#include "train/tensorboard.h"

namespace switchyard {
namespace {

const std::vector<std::string> kFree[] = {
    {"train", "steps", "log_every", "eval_every", "eval_examples", "save_every", "keep_last", "keep_best",
     "best_metric", "best_direction", "micro_batch_size", "recompute_blocks", "eval_task_examples", "eval_rank",
     "early_stopping_patience"},
    {"data", "cache", "text", "vocab", "folder", "eval_text", "eval_each_file", "eval_tasks", "eval_split"},
    {"distill", "baseline", "cache"},
};

bool is_free(const std::string& section, const std::string& key) {
  for (const auto& keys : kFree)
    if (keys.front() == section && std::find(keys.begin() + 1, keys.end(), key) != keys.end()) return true;
  return false;
}

template <class Config>
void add(Json& settings, const std::string& section, const Config& config) {
  settings[section] = Json::object();
  const Json fields = fields_to_json(config);
  for (const auto& [key, value] : fields.items())
    if (!is_free(section, key)) settings[section][key] = value;
}

uint32_t checksum(const std::vector<int32_t>& ids) {
  return crc32c({reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(int32_t)});
}

std::string shown(const Json& section, const std::string& key) {
  return section.is_object() && section.contains(key) ? section.at(key).dump() : "none";
}

}  // namespace

Json training_settings(const RunConfig& run, const Vocabulary& vocabulary, const ExampleSource& examples) {
  Json settings = Json::object();
  add(settings, "model", run.model);
  add(settings, "data", run.data);
  add(settings, "train", run.train);
  add(settings, "optimizer", run.optimizer);
  if (!run.distill.teacher.empty()) add(settings, "distill", run.distill);
  if (run.optimizer.schedule != "linear" && run.optimizer.schedule != "cosine")
    for (const char* key : {"decay_steps", "final_fraction"}) settings["optimizer"].erase(key);
  for (auto& entry : settings["data"]["mixture"])
    for (const char* key : {"text", "each_file", "folder"}) entry.erase(key);
  const auto first = examples.batch(0);
  settings["content"] = {
      {"vocabulary checksum", crc32c(vocabulary.model_bytes())},
      {"examples an epoch", examples.examples_per_epoch()},
      {"first batch's checksum", checksum(first.encoder_input_tokens) ^ checksum(first.decoder_target_tokens)}};
  return settings;
}

namespace {

// Keys that the program which wrote a checkpoint did not have count as this program's defaults.
Json default_settings() {
  Json settings = Json::object();
  add(settings, "model", ModelConfig{});
  add(settings, "data", DataConfig{});
  add(settings, "train", TrainConfig{});
  add(settings, "optimizer", OptimizerConfig{});
  add(settings, "distill", DistillConfig{});
  return settings;
}

}  // namespace

std::vector<std::string> changed_settings(const Json& before, const Json& now) {
  const Json defaults = default_settings();
  std::vector<std::string> changes;
  for (const auto& [section, values] : now.items()) {
    if (!before.contains(section)) continue;
    // The content is compared only where no key differs: another seed or length alone gives other batches of the same
    // text.
    if (section == "content" && !changes.empty()) continue;
    std::vector<std::string> keys;
    for (const Json* side : {&before.at(section), &values})
      for (const auto& [key, value] : side->items())
        if (std::find(keys.begin(), keys.end(), key) == keys.end()) keys.push_back(key);
    const Json unset = defaults.value(section, Json::object());
    for (const auto& key : keys) {
      if (!before.at(section).contains(key) && shown(values, key) == shown(unset, key)) continue;
      if (shown(before.at(section), key) != shown(values, key))
        changes.push_back(join(section == "content" ? "text: " : section + ".", key, ": ",
                               shown(before.at(section), key), " -> ", shown(values, key)));
    }
  }
  return changes;
}

}  // namespace switchyard
