// A ladder of experiments: contenders (sparse models and their dense twins) trained on rungs (sizes and lengths of
// training) with several seeds, each contender at the best rate of its own sweep on the rung below. Every run is a run
// file of its own in a folder of its own, so that a ladder that was cut short goes on where it was; what is kept of a
// run is one small file.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "train/trainer.h"

namespace switchyard {

// A rung: settings ("section.key=value") over the ladder's run file.
struct LadderRung {
  std::string name;
  std::vector<std::string> settings;

  template <class Self, class Field>
  static void visit(Self& self, Field&& field) {
    field("name", self.name, "in names of folders and in tables");
    field("settings", self.settings, "section.key=value, over the run file's");
  }
};

// One that climbs the rungs, with settings over theirs.
struct LadderContender {
  std::string name;
  std::vector<std::string> settings;
  double steps_scale = 1.0;
  std::string rate_of;

  template <class Self, class Field>
  static void visit(Self& self, Field&& field) {
    field("name", self.name, "in names of folders and in tables");
    field("settings", self.settings, "section.key=value, over the rung's");
    field("steps_scale", self.steps_scale,
          "times the rung's train.steps: a dense model of equal time gets more of them");
    field("rate_of", self.rate_of, "contender whose rate it takes instead of a sweep of its own");
  }
};

struct LadderConfig {
  std::string run;
  std::string baseline;
  std::vector<int64_t> seeds = {0, 1, 2};
  std::vector<double> rates;
  std::vector<LadderRung> rung;
  std::vector<LadderContender> contender;

  template <class Self, class Field>
  static void visit(Self& self, Field&& field) {
    field("run", self.run, "run file with what all runs have");
    field("baseline", self.baseline, "contender that the others are measured against, such as the dense twin");
    field("seeds", self.seeds, "of every contender on every rung; the first also of the sweeps");
    field("rates", self.rates, "learning rates of the sweep on each rung but the last, the only one too");
    field("rung", self.rung, "the smallest first, each a [[ladder.rung]]");
    field("contender", self.contender, "each a [[ladder.contender]]");
  }
};

// One run of a ladder.
struct LadderRun {
  size_t rung = 0, contender = 0;
  double rate = 0.0;
  int64_t seed = 0;
};

struct LadderPoint {
  int64_t step = 0;
  double loss = 0.0;  // held-out, nats per target token
};

struct LadderResult {
  std::string rung, contender;
  double rate = 0.0;
  int64_t seed = 0;
  int64_t steps = 0, tokens_per_step = 0, parameters = 0, num_experts = 0;
  double forward_flops_per_token = 0.0;
  double epochs = 0.0;  // how often the training text was seen: above 1 it was repeated
  std::vector<LadderPoint> curve;
};

Json to_json(const LadderResult& result);

class Ladder {
 public:
  // Reads LADDER.toml. `settings` go over every run's. Throws Error naming file and key for unknown keys, names that
  // are empty or come twice, a baseline that is no contender, lists that are empty, and what resolve_run() refuses in
  // any of the runs.
  Ladder(const std::filesystem::path& file, const std::filesystem::path& out, std::vector<std::string> settings);

  const LadderConfig& config() const { return config_; }

  // The next run that is not complete; none when the ladder is. A rung's rates are known once the sweep below is
  // complete.
  std::optional<LadderRun> next() const;
  size_t num_done() const;
  size_t num_runs() const;  // of the whole ladder

  RunConfig run_config(const LadderRun& run) const;
  std::filesystem::path folder_of(const LadderRun& run) const;  // of its training
  std::string name_of(const LadderRun& run) const;              // "nano switch-8 rate 0.05 seed 1"

  // Keeps the result of a run that is at its end, as one file in OUT/results.
  void keep(const LadderRun& run, const Trainer& trainer) const;
  std::vector<LadderResult> results() const;

  // The contender's best rate on a rung by the loss at the end; none before its sweep is complete.
  std::optional<double> best_rate(size_t rung, size_t contender) const;

 private:
  std::vector<LadderRun> sweep_of(size_t rung, size_t contender) const;
  std::vector<LadderRun> runs() const;  // those that are known by now, in order
  std::filesystem::path result_file(const LadderRun& run) const;
  std::optional<double> final_loss(const LadderRun& run) const;

  std::filesystem::path file_, out_;
  std::vector<std::string> settings_;
  LadderConfig config_;
};

}  // namespace switchyard
