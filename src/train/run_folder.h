// The folder of one run: run.toml, metrics.jsonl, TensorBoard's events and checkpoints. Of several processes that train
// one model, one has it.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "base/config.h"
#include "checkpoint/checkpoint_store.h"
#include "train/metrics.h"
#include "train/tensorboard.h"

namespace switchyard {

class RunFolder {
 public:
  // Makes nothing yet. With `resume` false throws Error if the folder holds a run.
  RunFolder(std::filesystem::path folder, CheckpointStoreOptions options, bool resume);

  const std::filesystem::path& path() const { return folder_; }

  // The checkpoint to continue from: the newest complete one, if the run is resumed and has one.
  const std::optional<std::filesystem::path>& resumed_checkpoint() const { return resumed_checkpoint_; }

  // Makes the folder, writes run.toml and opens the logs, cut back to `step`. Called once, before what follows.
  void start(const std::string& run_toml, int64_t step);

  // Appends a line to metrics.jsonl and its numbers to the events.
  void log(int64_t step, const Json& line);

  // A checkpoint of `step`, filled by `write`; eval_loss, if known, decides which is best. Returns its folder.
  std::filesystem::path save(int64_t step, std::optional<double> eval_loss,
                             const std::function<void(const std::filesystem::path& folder)>& write);

 private:
  std::filesystem::path folder_;
  CheckpointStore checkpoints_;
  std::optional<std::filesystem::path> resumed_checkpoint_;
  std::optional<MetricsWriter> metrics_;
  std::optional<EventWriter> events_;
};

}  // namespace switchyard
