// The checkpoints of one run: DIR/checkpoints/step-NNNNNN/, each a model directory with training/, and DIR/latest, a
// text file with the newest one's name.
//
// A checkpoint appears by one rename, after everything in it has been synced: whatever has that name is complete. What
// is cut short stays under a temporary name, is never opened, and goes with the next save.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <vector>

#include "checkpoint/training_state.h"

namespace switchyard {

struct CheckpointStoreOptions {
  int64_t keep_last = 2;  // at least 1
  bool keep_best = true;  // and the one with the smallest evaluation loss, however old
};

class CheckpointStore {
 public:
  // `run_folder` is DIR; it need not exist yet.
  explicit CheckpointStore(std::filesystem::path run_folder, CheckpointStoreOptions options = {});

  // A checkpoint in two halves, for several processes that fill one folder: begin() makes an empty folder, to be filled
  // with a model and its training state; commit(), once everybody has written, makes it the newest checkpoint and
  // returns its folder. eval_loss, if known, decides which is best; older ones beyond the options are deleted then. A
  // checkpoint of the same step is replaced. Until commit() every earlier checkpoint is untouched; abandon() removes
  // what begin() made.
  std::filesystem::path begin(int64_t step) const;
  std::filesystem::path commit(int64_t step, std::optional<double> eval_loss) const;
  void abandon(int64_t step) const;

  // Both halves around `write`, which fills the folder. Throws Error, with every earlier checkpoint untouched, if
  // anything cannot be written.
  std::filesystem::path save(int64_t step, std::optional<double> eval_loss,
                             const std::function<void(const std::filesystem::path& folder)>& write) const;

  // The complete checkpoint with the most steps, or nullopt. Does not trust `latest`, which may be missing or stale.
  std::optional<std::filesystem::path> newest_complete() const;

  // The one with the smallest recorded evaluation loss, or nullopt.
  std::optional<std::filesystem::path> best() const;

  // Steps of all complete checkpoints, in order.
  std::vector<int64_t> steps() const;

 private:
  std::filesystem::path folder_of(int64_t step) const;
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
