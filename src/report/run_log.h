// What a training run left behind, read for plotting: metrics.jsonl, run.toml, and the blanks that it filled in.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/config.h"

namespace switchyard {

// One value at one step; `seconds` of training until then, evaluation and saving left out.
struct LogPoint {
  double step = 0.0, seconds = 0.0, value = 0.0;
};
using LogSeries = std::vector<LogPoint>;

// The share of tokens that each expert of one sparse layer was chosen by, averaged over equal spans of logged steps.
struct LoadHistory {
  std::vector<double> last_step;           // [spans]: the step that a span ends with
  std::vector<std::vector<double>> loads;  // [spans][num_experts]
};

struct LayerLog {
  std::string name;                          // "encoder.1"
  std::map<std::string, LogSeries> numbers;  // every number of the layer by its key: dropped_fraction, ...
  LoadHistory load;
  const LogSeries& number(const std::string& key) const;  // empty if the run did not log it
};

struct RunLog {
  std::string name;
  std::filesystem::path folder;
  std::map<std::string, LogSeries> scalars;               // every number of metrics.jsonl by its key; eval_loss too
  std::vector<LayerLog> layers;                           // sparse layers, encoder first
  Json config = Json::object();                           // run.toml; empty without one
  const LogSeries& scalar(const std::string& key) const;  // empty if the run did not log it
};

// A sentence with blanks, and what each run put into them.
struct BlankSample {
  std::string text, prompt;
  std::vector<std::pair<std::string, std::string>> filled;  // run's name, the prompt filled in
};

struct ReportInput {
  std::vector<RunLog> runs;
  std::vector<BlankSample> samples;
  std::vector<std::pair<std::string, Json>> scaling;  // path and content of each folder's scaling.json
  std::vector<std::pair<std::string, Json>> ladders;  // ladder.json
  std::vector<std::pair<std::string, Json>> studies;  // study.json
};

// Reads each folder: a run's (with metrics.jsonl), or one that holds runs, a ladder.json or a study.json. Samples come
// from samples.json or comparison.json. A last line that is still being written is left out. Runs of one name are
// numbered. Throws Error naming file and line if a folder holds no run, or a file is not what it should be.
ReportInput read_runs(const std::vector<std::filesystem::path>& folders);

}  // namespace switchyard
