#include "report/run_log.h"

#include <algorithm>
#include <cmath>
#include <fstream>

#include "base/files.h"

namespace switchyard {
namespace {

// A layer's losses once had names without "loss", which logs still hold.
std::string current_name(const std::string& key) {
  static const std::map<std::string, std::string> kNames = {{"load_balance", "layer_load_balance_loss"},
                                                            {"router_z", "layer_router_z_loss"},
                                                            {"importance", "layer_importance_loss"},
                                                            {"load", "layer_load_loss"}};
  const auto found = kNames.find(key);
  return found == kNames.end() ? key : found->second;
}

constexpr size_t kMaxSpans = 240;
constexpr size_t kMaxExperts = 4096;

// Averages over spans of equally many lines; when there are too many spans, neighbours are joined.
class LoadAverager {
 public:
  void add(double step, const std::vector<double>& load) {
    if (sums_.empty() || counts_.back() == lines_per_span_) {
      if (sums_.size() == kMaxSpans) join_neighbours();
      if (sums_.empty() || counts_.back() == lines_per_span_) {
        sums_.emplace_back(load.size(), 0.0);
        counts_.push_back(0);
        last_step_.push_back(step);
      }
    }
    if (sums_.back().size() != load.size()) return;  // another number of experts than before: not this run's
    for (size_t expert = 0; expert < load.size(); ++expert) sums_.back()[expert] += load[expert];
    ++counts_.back();
    last_step_.back() = step;
  }

  LoadHistory history() const {
    LoadHistory history{.last_step = last_step_, .loads = sums_};
    for (size_t span = 0; span < sums_.size(); ++span)
      for (double& load : history.loads[span]) load /= static_cast<double>(counts_[span]);
    return history;
  }

 private:
  void join_neighbours() {
    for (size_t span = 0; span < kMaxSpans / 2; ++span) {
      auto sum = std::move(sums_[2 * span]);
      const auto& next = sums_[2 * span + 1];
      for (size_t expert = 0; expert < std::min(sum.size(), next.size()); ++expert) sum[expert] += next[expert];
      sums_[span] = std::move(sum);
      counts_[span] = counts_[2 * span] + counts_[2 * span + 1];
      last_step_[span] = last_step_[2 * span + 1];
    }
    sums_.resize(kMaxSpans / 2);
    counts_.resize(kMaxSpans / 2);
    last_step_.resize(kMaxSpans / 2);
    lines_per_span_ *= 2;
  }

  int64_t lines_per_span_ = 1;
  std::vector<std::vector<double>> sums_;
  std::vector<int64_t> counts_;
  std::vector<double> last_step_;
};

class RunReader {
 public:
  explicit RunReader(const std::filesystem::path& folder) : folder_(folder) {}

  RunLog read() {
    const auto path = folder_ / "metrics.jsonl";
    std::ifstream file(path, std::ios::binary);
    SY_CHECK(file.is_open(), path.string(), ": cannot be read");
    std::string text;
    for (int64_t number = 1; std::getline(file, text) && !file.eof(); ++number)
      add_line(text, join(path.string(), ":", number));
    for (auto& layer : log_.layers) layer.load = loads_[layer.name].history();
    std::sort(log_.layers.begin(), log_.layers.end(),
              [](const LayerLog& a, const LayerLog& b) { return sort_key(a) < sort_key(b); });
    if (std::filesystem::exists(folder_ / "run.toml")) log_.config = read_toml(folder_ / "run.toml").sections;
    log_.folder = folder_;
    log_.name = std::filesystem::absolute(folder_ / "").lexically_normal().parent_path().filename().string();
    return std::move(log_);
  }

 private:
  // "encoder.1" < "encoder.11" < "decoder.1"
  static std::tuple<bool, size_t, std::string> sort_key(const LayerLog& layer) {
    return {layer.name.starts_with("decoder"), layer.name.size(), layer.name};
  }

  void add_line(const std::string& text, const std::string& place) {
    const Json line = parse_json(text, place);
    SY_CHECK(line.is_object() && line.contains("step") && line.at("step").is_number(), place,
             ": expected an object with a \"step\"");
    LogPoint point{.step = line.at("step").get<double>(), .seconds = seconds_, .value = 0.0};
    if (line.contains("step_seconds") && line.at("step_seconds").is_number()) {
      seconds_ += line.at("step_seconds").get<double>() *
                  std::max(1.0, point.step - last_step_);  // for the steps between two lines
      last_step_ = point.step;
      point.seconds = seconds_;
    }
    for (const auto& [key, value] : line.items()) {
      if (value.is_number() && key != "step") append(log_.scalars[key], point, value);
      if (!value.is_object()) continue;
      for (const auto& [name, layer_value] : value.items()) add_layer_value(key, name, point, layer_value);
    }
  }

  void add_layer_value(const std::string& key, const std::string& name, const LogPoint& point, const Json& value) {
    // Other objects have parts of a mixture, or kinds of messages, by name.
    if (!name.starts_with("encoder.") && !name.starts_with("decoder.")) return;
    if (value.is_number()) append(layer(name).numbers[current_name(key)], point, value);
    if (key != "expert_load" || !value.is_array() || value.empty() || value.size() > kMaxExperts) return;
    std::vector<double> load;
    for (const auto& share : value) load.push_back(share.is_number() ? share.get<double>() : 0.0);
    layer(name);
    loads_[name].add(point.step, load);
  }

  static void append(LogSeries& series, LogPoint point, const Json& value) {
    if (!value.is_number()) return;
    point.value = value.get<double>();
    if (std::isfinite(point.value)) series.push_back(point);
  }

  LayerLog& layer(const std::string& name) {
    const auto found =
        std::find_if(log_.layers.begin(), log_.layers.end(), [&](const LayerLog& entry) { return entry.name == name; });
    if (found != log_.layers.end()) return *found;
    log_.layers.push_back({.name = name, .numbers = {}, .load = {}});
    return log_.layers.back();
  }

  std::filesystem::path folder_;
  RunLog log_;
  std::map<std::string, LoadAverager> loads_;
  double seconds_ = 0.0, last_step_ = 0.0;
};

std::string string_at(const Json& object, const char* key) {
  return object.is_object() && object.contains(key) && object.at(key).is_string() ? object.at(key).get<std::string>()
                                                                                  : "";
}

void read_samples(const std::filesystem::path& path, std::vector<BlankSample>& samples) {
  if (!std::filesystem::exists(path)) return;
  Json document = parse_json(read_file(path, 1 << 26), path.string());
  if (document.is_object()) document = document.contains("samples") ? Json(document.at("samples")) : Json::array();
  SY_CHECK(document.is_array(), path.string(), ": expected a list of samples");
  for (const auto& entry : document) {
    BlankSample sample{.text = string_at(entry, "text"), .prompt = string_at(entry, "prompt"), .filled = {}};
    SY_CHECK(!sample.prompt.empty() && entry.contains("filled") && entry.at("filled").is_object(), path.string(),
             ": expected samples of \"text\", \"prompt\" and \"filled\"");
    for (const auto& [run, filled] : entry.at("filled").items())
      if (filled.is_string()) sample.filled.emplace_back(run, filled.get<std::string>());
    samples.push_back(std::move(sample));
  }
}

bool holds_run(const std::filesystem::path& folder) {
  return std::filesystem::is_regular_file(folder / "metrics.jsonl");
}

}  // namespace

const LogSeries& RunLog::scalar(const std::string& key) const {
  static const LogSeries none;
  const auto found = scalars.find(key);
  return found == scalars.end() ? none : found->second;
}

const LogSeries& LayerLog::number(const std::string& key) const {
  static const LogSeries none;
  const auto found = numbers.find(key);
  return found == numbers.end() ? none : found->second;
}

ReportInput read_runs(const std::vector<std::filesystem::path>& folders) {
  ReportInput input;
  for (const auto& folder : folders) {
    SY_CHECK(std::filesystem::is_directory(folder), folder.string(), ": no such folder");
    std::vector<std::filesystem::path> found;
    if (holds_run(folder)) {
      found.push_back(folder);
    } else {
      for (const auto& entry : std::filesystem::directory_iterator(folder))
        if (holds_run(entry.path())) found.push_back(entry.path());
      std::sort(found.begin(), found.end());
    }
    const bool has_ladder = std::filesystem::exists(folder / "ladder.json"),
               has_study = std::filesystem::exists(folder / "study.json");
    SY_CHECK(!found.empty() || has_ladder || has_study, folder.string(),
             ": holds no metrics.jsonl, nor does a folder in it; name the --out folder of `switchyard train`");
    for (const auto& path : found) input.runs.push_back(RunReader(path).read());
    for (const char* name : {"samples.json", "comparison.json"}) read_samples(folder / name, input.samples);
    if (const auto path = folder / "scaling.json"; std::filesystem::exists(path))
      input.scaling.emplace_back(path.string(), parse_json(read_file(path, 1 << 26), path.string()));
    if (const auto path = folder / "ladder.json"; has_ladder)
      input.ladders.emplace_back(path.string(), parse_json(read_file(path, 1 << 26), path.string()));
    if (const auto path = folder / "study.json"; has_study)
      input.studies.emplace_back(path.string(), parse_json(read_file(path, 1 << 26), path.string()));
  }
  std::map<std::string, int> uses;
  for (auto& run : input.runs)
    if (const int use = ++uses[run.name]; use > 1) run.name += " (" + std::to_string(use) + ")";
  return input;
}

}  // namespace switchyard
