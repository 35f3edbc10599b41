#include "train/run_folder.h"

#include "base/files.h"

namespace switchyard {

RunFolder::RunFolder(std::filesystem::path folder, CheckpointStoreOptions options, bool resume)
    : folder_(std::move(folder)), checkpoints_(folder_, options) {
  const auto checkpoint = checkpoints_.newest_complete();
  const bool has_run = checkpoint.has_value() || std::filesystem::exists(folder_ / "metrics.jsonl");
  SY_CHECK(resume || !has_run, folder_.string(),
           " already holds a run; continue it with --resume, or choose another --out");
  if (resume) resumed_checkpoint_ = checkpoint;
}

void RunFolder::start(const std::string& run_toml, int64_t step) {
  std::filesystem::create_directories(folder_);
  write_file_atomically(folder_ / "run.toml", run_toml);
  metrics_.emplace(folder_ / "metrics.jsonl", step);
  events_.emplace(folder_, step);
}

void RunFolder::log(int64_t step, const Json& line) {
  metrics_->write(line);
  events_->write(step, line);
}

std::filesystem::path RunFolder::save(int64_t step, std::optional<double> eval_loss,
                                      const std::function<void(const std::filesystem::path& folder)>& write) {
  return checkpoints_.save(step, eval_loss, write);
}

}  // namespace switchyard
