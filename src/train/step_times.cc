#include "train/step_times.h"

#include <unistd.h>

#include <algorithm>
#include <memory>

#include "base/clock.h"
#include "base/interrupt.h"
#include "base/progress.h"

namespace switchyard {

std::vector<StepTime> measure_step_times(const Ladder& ladder, const std::filesystem::path& out, int64_t rounds,
                                         int64_t steps, at::Device device, bool quiet) {
  const auto& config = ladder.config();
  std::vector<StepTime> times;
  // Trainers want folders; these are of this process alone.
  const auto scratch = out / join("step_times.", getpid());
  SY_CHECK(std::filesystem::create_directories(scratch), scratch.string(), " exists; expected to make it");
  Progress progress({.name = "step times", .unit = "rounds", .quiet = quiet, .after_seconds = 0},
                    static_cast<double>(config.rung.size()) * static_cast<double>(rounds + 1));
  for (size_t rung = 0; rung < config.rung.size(); ++rung) {
    const auto folder = scratch / config.rung[rung].name;
    std::vector<std::unique_ptr<Trainer>> trainers;
    for (size_t contender = 0; contender < config.contender.size(); ++contender) {
      const LadderRun run{rung, contender, config.rates[config.rates.size() / 2], config.seeds.front()};
      auto resolved = ladder.run_config(run);
      trainers.push_back(
          std::make_unique<Trainer>(resolved, folder / config.contender[contender].name, ResumeOptions{}, device));
    }
    std::vector<std::vector<double>> seconds(trainers.size());
    for (int64_t round = 0; round <= rounds && !interrupted(); ++round) {
      for (size_t contender = 0; contender < trainers.size(); ++contender) {
        const double start = steady_seconds();
        for (int64_t step = 0; step < steps; ++step) trainers[contender]->train_step();
        if (round > 0) seconds[contender].push_back((steady_seconds() - start) / static_cast<double>(steps));
      }
      progress.update(static_cast<double>(static_cast<int64_t>(rung) * (rounds + 1) + round), config.rung[rung].name);
    }
    for (size_t contender = 0; contender < trainers.size(); ++contender) {
      auto& sorted = seconds[contender];
      if (sorted.empty()) continue;
      std::sort(sorted.begin(), sorted.end());
      times.push_back({.rung = config.rung[rung].name,
                       .contender = config.contender[contender].name,
                       .median = sorted[sorted.size() / 2],
                       .lowest = sorted.front(),
                       .highest = sorted.back()});
    }
  }
  progress.finish();
  std::filesystem::remove_all(scratch);
  return times;
}

Json to_json(const std::vector<StepTime>& times) {
  Json json = Json::array();
  for (const auto& time : times)
    json.push_back({{"rung", time.rung},
                    {"contender", time.contender},
                    {"seconds", time.median},
                    {"lowest", time.lowest},
                    {"highest", time.highest}});
  return json;
}

}  // namespace switchyard
