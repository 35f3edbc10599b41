#include "train/run_folder.h"

#include "base/files.h"
#include "base/messages.h"

namespace switchyard {
namespace {

constexpr char kMetrics[] = "metrics.jsonl";

}  // namespace

RunFolder::RunFolder(std::filesystem::path folder, CheckpointStoreOptions options, bool resume)
    : folder_(std::move(folder)), checkpoints_(folder_, std::move(options)) {
  std::error_code error;
  is_new_ = std::filesystem::create_directories(folder_, error);
  SY_CHECK(std::filesystem::is_directory(folder_), "cannot make the folder ", folder_.string(), ": ", error.message());
  lock_.emplace(folder_ / ".lock", folder_.string());
  const auto checkpoint = checkpoints_.newest_complete();
  const bool has_run = checkpoint.has_value() || std::filesystem::exists(folder_ / kMetrics);
  SY_CHECK(resume || !has_run, folder_.string(),
           " already holds a run; continue it with --resume, or choose another --out");
  if (resume) resumed_checkpoint_ = checkpoint;
}

RunFolder::~RunFolder() {
  lock_.reset();
  std::error_code ignored;
  if (is_new_ && !is_started_) std::filesystem::remove(folder_, ignored);  // does nothing to a folder that is not empty
}

void RunFolder::put_metrics_aside() const {
  std::error_code error;
  const auto size = std::filesystem::file_size(folder_ / kMetrics, error);
  if (error || size == 0) return;
  int number = 1;
  const auto aside = [&] { return folder_ / join("metrics.", number, ".jsonl"); };
  while (std::filesystem::exists(aside())) ++number;
  std::filesystem::rename(folder_ / kMetrics, aside(), error);
  SY_CHECK(!error, "cannot rename ", (folder_ / kMetrics).string(), ": ", error.message());
  say(folder_.string(), " has no checkpoint to resume from: training starts anew, the earlier metrics are kept in ",
      aside().filename().string());
}

void RunFolder::start(const std::string& run_toml, int64_t step) {
  if (!resumed_checkpoint_) put_metrics_aside();
  is_started_ = true;
  write_file_atomically(folder_ / "run.toml", run_toml);
  metrics_.emplace(folder_ / kMetrics, step);
  events_.emplace(folder_, step);
}

void RunFolder::log(int64_t step, const Json& line) {
  metrics_->write(line);
  events_->write(step, line);
}

std::filesystem::path RunFolder::commit(int64_t step, const std::vector<NamedNumber>& numbers) {
  metrics_->sync();
  return checkpoints_.commit(step, numbers);
}

std::filesystem::path RunFolder::save(int64_t step, const std::vector<NamedNumber>& numbers,
                                      const std::function<void(const std::filesystem::path& folder)>& write) {
  return checkpoints_.save(step, numbers, [&](const std::filesystem::path& folder) {
    write(folder);
    metrics_->sync();
  });
}

}  // namespace switchyard
