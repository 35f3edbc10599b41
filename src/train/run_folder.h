// The folder of one run: run.toml, metrics.jsonl, TensorBoard's events and checkpoints. Of several processes that train
// one model, one has it.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "base/config.h"
#include "base/lock_file.h"
#include "checkpoint/checkpoint_store.h"
#include "train/metrics.h"
#include "train/tensorboard.h"

namespace switchyard {

class RunFolder {
 public:
  // Makes the folder and locks it until the end. Throws Error if another process has it, naming that one, and, with
  // `resume` false, if it holds a run.
  RunFolder(std::filesystem::path folder, CheckpointStoreOptions options, bool resume);
  ~RunFolder();

  const std::filesystem::path& path() const { return folder_; }

  // The checkpoint to continue from: the newest complete one, if the run is resumed and has one.
  const std::optional<std::filesystem::path>& resumed_checkpoint() const { return resumed_checkpoint_; }

  // Writes run.toml and opens the logs, cut back to `step`. Logs of a run that left no checkpoint to resume from are
  // put aside under another name. Called once, before what follows.
  void start(const std::string& run_toml, int64_t step);

  // Appends a line to metrics.jsonl and its numbers to the events.
  void log(int64_t step, const Json& line);

  // A checkpoint of `step`, filled by `write`, with what its evaluation gave. The logs reach the disk before it.
  // Returns its folder.
  std::filesystem::path save(int64_t step, const std::vector<NamedNumber>& numbers,
                             const std::function<void(const std::filesystem::path& folder)>& write);

  // The same in two halves, between which other processes write their shares into begin()'s folder.
  std::filesystem::path begin(int64_t step) const { return checkpoints_.begin(step); }
  std::filesystem::path commit(int64_t step, const std::vector<NamedNumber>& numbers);

  std::optional<BestCheckpoint> best() const { return checkpoints_.best(); }

  // Whether these numbers are better than those of every checkpoint.
  bool is_new_best(const std::vector<NamedNumber>& numbers) const { return checkpoints_.is_new_best(numbers); }

 private:
  void put_metrics_aside() const;

  std::filesystem::path folder_;
  bool is_new_ = false, is_started_ = false;
  std::optional<LockFile> lock_;
  CheckpointStore checkpoints_;
  std::optional<std::filesystem::path> resumed_checkpoint_;
  std::optional<MetricsWriter> metrics_;
  std::optional<EventWriter> events_;
};

}  // namespace switchyard
