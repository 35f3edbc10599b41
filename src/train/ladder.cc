#include "train/ladder.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <set>

#include "base/files.h"
#include "model/flops.h"

namespace switchyard {
namespace {

std::string short_number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", value);
  return text;
}

template <class Part>
void check_names(const std::vector<Part>& parts, const std::string& place) {
  SY_CHECK(!parts.empty(), place, ": expected at least one");
  std::set<std::string> seen;
  for (const auto& part : parts) {
    const bool is_plain =
        !part.name.empty() && part.name.find_first_of("/ ") == std::string::npos && part.name.front() != '.';
    SY_CHECK(is_plain, place, ": name \"", part.name, "\"; expected a word that can name a folder");
    SY_CHECK(seen.insert(part.name).second, place, ": \"", part.name, "\" comes twice");
  }
}

LadderConfig read_ladder(const std::filesystem::path& file) {
  const auto document = read_toml(file);
  for (const auto& [section, keys] : document.sections.items())
    SY_CHECK(section == "ladder", file.string(), ": unknown section [", section, "]; expected [ladder] alone");
  LadderConfig config;
  read_section(config, document, "ladder");
  const auto place = [&](const std::string& key) { return document.place("ladder." + key); };
  SY_CHECK(!config.run.empty(), file.string(),
           ": ladder.run is missing; expected the run file with what all runs have");
  SY_CHECK(!config.seeds.empty(), place("seeds"), " is empty; expected at least one");
  SY_CHECK(!config.rates.empty(), file.string(), ": ladder.rates is missing; expected learning rates to try");
  for (const double rate : config.rates) SY_CHECK(rate > 0, place("rates"), " has ", rate, "; expected above 0");
  check_names(config.rung, place("rung"));
  check_names(config.contender, place("contender"));
  const auto find = [&](const std::string& name) {
    return std::find_if(config.contender.begin(), config.contender.end(),
                        [&](const auto& contender) { return contender.name == name; });
  };
  SY_CHECK(find(config.baseline) != config.contender.end(), place("baseline"), " = \"", config.baseline,
           "\"; expected the name of a contender");
  for (const auto& contender : config.contender) {
    SY_CHECK(contender.steps_scale > 0, place("contender"), ": ", contender.name, " has steps_scale ",
             contender.steps_scale, "; expected above 0");
    const auto other = find(contender.rate_of);
    SY_CHECK(contender.rate_of.empty() || (other != config.contender.end() && other->rate_of.empty()),
             place("contender"), ": ", contender.name, " has rate_of \"", contender.rate_of,
             "\"; expected a contender with a sweep of its own");
  }
  return config;
}

LadderResult result_of(const Json& json) {
  LadderResult result{.rung = json.at("rung"),
                      .contender = json.at("contender"),
                      .rate = json.at("rate"),
                      .seed = json.at("seed"),
                      .steps = json.at("steps"),
                      .tokens_per_step = json.at("tokens_per_step"),
                      .parameters = json.at("parameters"),
                      .num_experts = json.at("num_experts"),
                      .forward_flops_per_token = json.at("forward_flops_per_token"),
                      .epochs = json.at("epochs"),
                      .curve = {}};
  for (const auto& point : json.at("curve")) result.curve.push_back({point.at("step"), point.at("eval_loss")});
  return result;
}

// The evaluations of a run by its log.
std::vector<LadderPoint> curve_of(const std::filesystem::path& log) {
  std::vector<LadderPoint> curve;
  std::ifstream lines(log);
  for (std::string text; std::getline(lines, text);) {
    const Json line = parse_json(text, log.string());
    if (line.contains("eval_loss") && line.at("eval_loss").is_number())
      curve.push_back({line.at("step"), line.at("eval_loss")});
  }
  return curve;
}

}  // namespace

Json to_json(const LadderResult& result) {
  Json curve = Json::array();
  for (const auto& point : result.curve) curve.push_back({{"step", point.step}, {"eval_loss", point.loss}});
  return {{"rung", result.rung},
          {"contender", result.contender},
          {"rate", result.rate},
          {"seed", result.seed},
          {"steps", result.steps},
          {"tokens_per_step", result.tokens_per_step},
          {"parameters", result.parameters},
          {"num_experts", result.num_experts},
          {"forward_flops_per_token", result.forward_flops_per_token},
          {"epochs", result.epochs},
          {"curve", curve}};
}

Ladder::Ladder(const std::filesystem::path& file, const std::filesystem::path& out, std::vector<std::string> settings)
    : file_(file), out_(out), settings_(std::move(settings)), config_(read_ladder(file)) {
  // Checks every run now: a mistake in the last one is not found only after hours.
  for (size_t rung = 0; rung < config_.rung.size(); ++rung)
    for (size_t contender = 0; contender < config_.contender.size(); ++contender)
      run_config({rung, contender, config_.rates.front(), config_.seeds.front()});
}

std::string Ladder::name_of(const LadderRun& run) const {
  return join(config_.rung[run.rung].name, " ", config_.contender[run.contender].name, " rate ", short_number(run.rate),
              " seed ", run.seed);
}

std::filesystem::path Ladder::folder_of(const LadderRun& run) const {
  return out_ / config_.rung[run.rung].name /
         join(config_.contender[run.contender].name, "-", short_number(run.rate), "-", run.seed);
}

std::filesystem::path Ladder::result_file(const LadderRun& run) const {
  return out_ / "results" /
         join(config_.rung[run.rung].name, "-", config_.contender[run.contender].name, "-", short_number(run.rate), "-",
              run.seed, ".json");
}

RunConfig Ladder::run_config(const LadderRun& run) const {
  auto settings = config_.rung[run.rung].settings;
  const auto& own = config_.contender[run.contender].settings;
  settings.insert(settings.end(), own.begin(), own.end());
  settings.push_back(join("optimizer.learning_rate=", short_number(run.rate)));
  settings.push_back(join("train.seed=", run.seed));
  settings.insert(settings.end(), settings_.begin(), settings_.end());
  const auto file = file_.parent_path() / config_.run;
  const auto checkpoint = ResumeOptions{.resume = true}.checkpoint(folder_of(run));
  if (const double scale = config_.contender[run.contender].steps_scale; scale != 1.0) {
    const auto steps = static_cast<double>(read_run(file, settings, checkpoint).train.steps);
    settings.push_back(join("train.steps=", static_cast<int64_t>(std::llround(steps * scale))));
  }
  return read_run(file, settings, checkpoint);
}

std::vector<LadderRun> Ladder::sweep_of(size_t rung, size_t contender) const {
  std::vector<LadderRun> sweep;
  if (!config_.contender[contender].rate_of.empty()) return sweep;
  if (rung + 1 < config_.rung.size() || config_.rung.size() == 1)
    for (const double rate : config_.rates) sweep.push_back({rung, contender, rate, config_.seeds.front()});
  return sweep;
}

std::vector<LadderRun> Ladder::runs() const {
  std::vector<LadderRun> runs;
  for (size_t rung = 0; rung < config_.rung.size(); ++rung)
    for (size_t contender = 0; contender < config_.contender.size(); ++contender) {
      const auto sweep = sweep_of(rung, contender);
      runs.insert(runs.end(), sweep.begin(), sweep.end());
      const auto rate = best_rate(rung > 0 ? rung - 1 : 0, contender);
      if (!rate) continue;
      for (const int64_t seed : config_.seeds)
        if (sweep.empty() || seed != config_.seeds.front()) runs.push_back({rung, contender, *rate, seed});
    }
  return runs;
}

size_t Ladder::num_runs() const {
  size_t count = 0;
  for (size_t rung = 0; rung < config_.rung.size(); ++rung)
    for (size_t contender = 0; contender < config_.contender.size(); ++contender) {
      const size_t sweep = sweep_of(rung, contender).size();
      count += sweep + config_.seeds.size() - (sweep > 0 ? 1 : 0);
    }
  return count;
}

std::optional<LadderRun> Ladder::next() const {
  for (const auto& run : runs())
    if (!std::filesystem::exists(result_file(run))) return run;
  return std::nullopt;
}

size_t Ladder::num_done() const {
  const auto all = runs();
  return static_cast<size_t>(std::count_if(
      all.begin(), all.end(), [&](const LadderRun& run) { return std::filesystem::exists(result_file(run)); }));
}

std::optional<double> Ladder::final_loss(const LadderRun& run) const {
  const auto path = result_file(run);
  if (!std::filesystem::exists(path)) return std::nullopt;
  return result_of(parse_json(read_file(path), path.string())).curve.back().loss;
}

std::optional<double> Ladder::best_rate(size_t rung, size_t contender) const {
  const auto& rate_of = config_.contender[contender].rate_of;
  for (size_t other = 0; !rate_of.empty() && other < config_.contender.size(); ++other)
    if (config_.contender[other].name == rate_of) return best_rate(rung, other);
  std::optional<double> rate;
  double best = 0.0;
  for (const auto& run : sweep_of(rung, contender)) {
    const auto loss = final_loss(run);
    if (!loss) return std::nullopt;
    if (rate && *loss >= best) continue;
    rate = run.rate;
    best = *loss;
  }
  return rate;
}

void Ladder::keep(const LadderRun& run, const Trainer& trainer) const {
  const auto& config = trainer.run();
  const int64_t per_sequence = trainer.tokens_per_step() / config.train.batch_size;
  LadderResult result{.rung = config_.rung[run.rung].name,
                      .contender = config_.contender[run.contender].name,
                      .rate = run.rate,
                      .seed = run.seed,
                      .steps = trainer.step(),
                      .tokens_per_step = trainer.tokens_per_step(),
                      .parameters = trainer.num_parameters(),
                      .num_experts = config.model.routing.num_experts,
                      .forward_flops_per_token = forward_flops(config.model, config.data.encoder_length,
                                                               per_sequence - config.data.encoder_length) /
                                                 static_cast<double>(per_sequence),
                      .epochs = trainer.epochs(),
                      .curve = curve_of(trainer.folder() / "metrics.jsonl")};
  SY_CHECK(!result.curve.empty(), trainer.folder().string(), ": the run has no held-out loss; expected data.eval_text");
  std::filesystem::create_directories(out_ / "results");
  write_file_atomically(result_file(run), to_json(result).dump(1) + "\n");
}

std::vector<LadderResult> Ladder::results() const {
  std::vector<LadderResult> results;
  for (const auto& run : runs())
    if (const auto path = result_file(run); std::filesystem::exists(path))
      results.push_back(result_of(parse_json(read_file(path), path.string())));
  return results;
}

}  // namespace switchyard
