// The checkpoints of one run: DIR/checkpoints/step-NNNNNN/, each a model directory with training/, and DIR/latest and
// DIR/best, text files with the newest and the best one's name.
//
// A checkpoint appears by one rename, after everything in it has been synced: whatever has that name is complete. What
// is cut short stays under a temporary name, is never opened, and goes with the next save.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <vector>

#include "base/named_number.h"
#include "checkpoint/training_state.h"

namespace switchyard {

struct BestCheckpoint {
  int64_t step = 0;
  double value = 0.0;  // of best_metric
};

struct CheckpointStoreOptions {
  int64_t keep_last = 2;                  // at least 1
  bool keep_best = true;                  // and the best one, however old
  std::string best_metric = "eval_loss";  // which of its numbers says how good a checkpoint is
  bool higher_is_better = false;
};

class CheckpointStore {
 public:
  // `run_folder` is DIR; it need not exist yet.
  explicit CheckpointStore(std::filesystem::path run_folder, CheckpointStoreOptions options = {});

  // A checkpoint in two halves, for several processes that fill one folder: begin() makes an empty folder, to be filled
  // with a model and its training state; commit(), once everybody has written, makes it the newest checkpoint and
  // returns its folder. `numbers`, as evaluations of this step gave them, are kept in it; older ones beyond the options
  // are deleted then. A checkpoint of the same step is replaced. Until commit() every earlier checkpoint is untouched;
  // abandon() removes what begin() made.
  std::filesystem::path begin(int64_t step) const;
  std::filesystem::path commit(int64_t step, const std::vector<NamedNumber>& numbers) const;
  void abandon(int64_t step) const;

  // Both halves around `write`, which fills the folder. Throws Error, with every earlier checkpoint untouched, if
  // anything cannot be written.
  std::filesystem::path save(int64_t step, const std::vector<NamedNumber>& numbers,
                             const std::function<void(const std::filesystem::path& folder)>& write) const;

  // The complete checkpoint with the most steps, or nullopt. Does not trust `latest`, which may be missing or stale.
  std::optional<std::filesystem::path> newest_complete() const;

  // The one with the best recorded best_metric, the first of equals, or nullopt.
  std::optional<BestCheckpoint> best() const;

  // Whether these numbers are better than those of every checkpoint; false without a finite best_metric.
  bool is_new_best(const std::vector<NamedNumber>& numbers) const;

  std::filesystem::path folder_of(int64_t step) const;

  // Steps of all complete checkpoints, in order.
  std::vector<int64_t> steps() const;

 private:
  bool is_better(double value, double other) const;
  std::filesystem::path temporary_of(int64_t step) const;
  void remove_leftovers() const;
  void remove_superseded() const;

  std::filesystem::path run_folder_, checkpoints_;
  CheckpointStoreOptions options_;
};

// The model that `path` names: a model directory itself, a run folder's newest checkpoint, or with "@best" behind the
// run folder's name the one with the best evaluation. Throws Error.
std::filesystem::path resolve_model_folder(const std::filesystem::path& path);

// What Vocabulary::load() opens: the checkpoint of a run as above, else `path` itself.
std::filesystem::path resolve_vocabulary(const std::filesystem::path& path);

}  // namespace switchyard
