#include "checkpoint/checkpoint_store.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "base/error.h"
#include "base/files.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

constexpr char kPrefix[] = "step-";
constexpr char kTemporaryPrefix[] = ".tmp-";
constexpr char kEvaluationFile[] = "evaluation.json";  // in training/: {"eval_loss": x, ...}

std::string folder_name(int64_t step) {
  char name[32];
  std::snprintf(name, sizeof(name), "%s%06lld", kPrefix, static_cast<long long>(step));
  return name;
}

// The step of a folder's name, or nullopt.
std::optional<int64_t> step_of(const std::string& name) {
  if (!name.starts_with(kPrefix)) return std::nullopt;
  int64_t step = -1;
  const char *begin = name.data() + std::strlen(kPrefix), *end = name.data() + name.size();
  const auto result = std::from_chars(begin, end, step);
  if (result.ec != std::errc{} || result.ptr != end || step < 0) return std::nullopt;
  return step;
}

// fsync of every file below `folder`, then of the folders: the files of a callback that wrote them without care.
void sync_tree(const fs::path& folder) {
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_directory()) {
      sync_folder(entry.path());
      continue;
    }
    const int descriptor = ::open(entry.path().c_str(), O_RDONLY | O_CLOEXEC);
    const bool synced = descriptor >= 0 && ::fsync(descriptor) == 0;
    const std::string cause = synced ? "" : std::strerror(errno);
    if (descriptor >= 0) ::close(descriptor);
    SY_CHECK(synced, "cannot write ", entry.path().string(), ": ", cause);
  }
  sync_folder(folder);
}

void rename_folder(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::rename(from, to, error);
  SY_CHECK(!error, "cannot rename ", from.string(), " to ", to.string(), ": ", error.message());
}

// Puts `from` in the place of an existing `to` by one exchange, so that at no instant neither has the name. Where the
// file system cannot exchange, the old one goes first.
void replace_folder(const fs::path& from, const fs::path& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0) return;
  fs::path aside = from;
  aside += "-replaced";
  rename_folder(to, aside);
  rename_folder(from, to);
}

void make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  SY_CHECK(!error && fs::is_directory(folder), "cannot make the folder ", folder.string(), ": ", error.message());
}

// A number that the checkpoint's evaluation recorded, or nullopt.
std::optional<double> recorded_number(const fs::path& checkpoint, const std::string& name) {
  const fs::path path = checkpoint / "training" / kEvaluationFile;
  if (!fs::exists(path)) return std::nullopt;
  try {
    const Json json = parse_json(read_file(path, 1 << 16), path.string());
    if (!json.is_object() || !json.contains(name) || !json.at(name).is_number()) return std::nullopt;
    return json.at(name).get<double>();
  } catch (const Error&) {
    return std::nullopt;  // a lost record makes a checkpoint not the best; it still opens
  }
}

}  // namespace

CheckpointStore::CheckpointStore(fs::path run_folder, CheckpointStoreOptions options)
    : run_folder_(std::move(run_folder)), checkpoints_(run_folder_ / "checkpoints"), options_(std::move(options)) {
  SY_CHECK(options_.keep_last >= 1, "keep_last is ", options_.keep_last, ", expected at least 1");
}

fs::path CheckpointStore::folder_of(int64_t step) const { return checkpoints_ / folder_name(step); }

std::vector<int64_t> CheckpointStore::steps() const {
  std::vector<int64_t> steps;
  if (!fs::is_directory(checkpoints_)) return steps;
  for (const auto& entry : fs::directory_iterator(checkpoints_)) {
    const auto step = step_of(entry.path().filename().string());
    // config.json is a model's last file: a folder that somebody else cut short does not count.
    if (step && fs::exists(entry.path() / "config.json")) steps.push_back(*step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

std::optional<fs::path> CheckpointStore::newest_complete() const {
  const auto all = steps();
  if (all.empty()) return std::nullopt;
  return folder_of(all.back());
}

std::optional<BestCheckpoint> CheckpointStore::best() const {
  std::optional<BestCheckpoint> best;
  for (const int64_t step : steps()) {
    const auto value = recorded_number(folder_of(step), options_.best_metric);
    if (value && (!best || is_better(*value, best->value))) best = BestCheckpoint{step, *value};
  }
  return best;
}

bool CheckpointStore::is_better(double value, double other) const {
  return options_.higher_is_better ? value > other : value < other;
}

bool CheckpointStore::is_new_best(const std::vector<NamedNumber>& numbers) const {
  const auto value = find_number(numbers, options_.best_metric);
  if (!value || !std::isfinite(*value)) return false;
  const auto leader = best();
  return !leader || is_better(*value, leader->value);
}

void CheckpointStore::remove_leftovers() const {
  for (const auto& entry : fs::directory_iterator(checkpoints_))
    if (entry.path().filename().string().starts_with(kTemporaryPrefix)) fs::remove_all(entry.path());
}

void CheckpointStore::remove_superseded() const {
  const auto all = steps();
  const auto kept = options_.keep_best ? best() : std::nullopt;
  const auto num_superseded = static_cast<int64_t>(all.size()) - options_.keep_last;
  for (int64_t i = 0; i < num_superseded; ++i) {
    const auto folder = folder_of(all[static_cast<size_t>(i)]);
    if (kept && all[static_cast<size_t>(i)] == kept->step) continue;
    // Renamed first: a deletion that is cut short must not leave half a checkpoint under a valid name.
    const auto doomed = checkpoints_ / (std::string(kTemporaryPrefix) + "delete-" + folder.filename().string());
    rename_folder(folder, doomed);
    fs::remove_all(doomed);
  }
}

fs::path CheckpointStore::temporary_of(int64_t step) const {
  return checkpoints_ / (kTemporaryPrefix + folder_name(step));
}

fs::path CheckpointStore::begin(int64_t step) const {
  SY_CHECK(step >= 0, "a checkpoint's step is ", step, ", expected at least 0");
  make_folder(checkpoints_);
  remove_leftovers();
  make_folder(temporary_of(step));
  return temporary_of(step);
}

fs::path CheckpointStore::commit(int64_t step, const std::vector<NamedNumber>& numbers) const {
  auto target = folder_of(step);
  const auto temporary = temporary_of(step);
  if (!numbers.empty()) {
    Json json = Json::object();
    for (const auto& number : numbers) json[number.name] = number.value;  // not finite: null, which is no number
    make_folder(temporary / "training");
    write_file_atomically(temporary / "training" / kEvaluationFile, json.dump() + "\n");
  }
  SY_CHECK(fs::exists(temporary / "config.json"), "checkpoint of step ", step, " has no config.json");
  sync_tree(temporary);
  if (fs::exists(target))
    replace_folder(temporary, target);
  else
    rename_folder(temporary, target);
  sync_folder(checkpoints_);
  write_file_atomically(run_folder_ / "latest", target.filename().string() + "\n");
  if (const auto leader = best()) write_file_atomically(run_folder_ / "best", folder_name(leader->step) + "\n");
  remove_leftovers();
  remove_superseded();
  return target;
}

void CheckpointStore::abandon(int64_t step) const {
  std::error_code ignored;
  fs::remove_all(temporary_of(step), ignored);
}

fs::path CheckpointStore::save(int64_t step, const std::vector<NamedNumber>& numbers,
                               const std::function<void(const fs::path& folder)>& write) const {
  const auto failed = [&](const std::exception& error) {
    abandon(step);
    return Error(
        join("cannot save the checkpoint of step ", step, ": ", error.what(), "; earlier checkpoints are untouched"));
  };
  try {
    write(begin(step));
    return commit(step, numbers);
  } catch (const fs::filesystem_error& error) {
    throw failed(error);
  } catch (const Error& error) {
    throw failed(error);
  }
}

namespace {

// What DIR/best names, which is by the run's own metric; where that is lost, the one with the lowest eval_loss.
std::optional<fs::path> best_of(const fs::path& run) {
  if (fs::exists(run / "best")) {
    std::string name = read_file(run / "best", 1 << 10);
    while (name.ends_with('\n')) name.pop_back();
    const auto folder = run / "checkpoints" / name;
    if (step_of(name) && fs::exists(folder / "config.json")) return folder;
  }
  const CheckpointStore store(run);
  const auto best = store.best();
  if (!best) return std::nullopt;
  return store.folder_of(best->step);
}

}  // namespace

fs::path resolve_model_folder(const fs::path& path) {
  constexpr std::string_view kBest = "@best";
  if (const std::string name = path.string(); name.ends_with(kBest) && !fs::exists(path)) {
    const fs::path run = name.substr(0, name.size() - kBest.size());
    SY_CHECK(fs::is_directory(run), run.string(), " does not exist; expected a training run's folder before ", kBest);
    if (const auto best = best_of(run)) return *best;
    throw Error(join(run.string(), " has no checkpoint with an evaluation; leave ", kBest, " out for the newest one"));
  }
  SY_CHECK(fs::exists(path), path.string(), " does not exist; expected a model directory or a training run's folder");
  if (fs::exists(path / "config.json")) return path;
  if (const auto newest = CheckpointStore(path).newest_complete()) return *newest;
  throw Error(join(path.string(), " is not a model (no config.json) and no training run with a complete checkpoint"));
}

fs::path resolve_vocabulary(const fs::path& path) {
  if (!fs::exists(path) && path.string().ends_with("@best")) return resolve_model_folder(path);
  if (fs::is_directory(path) && !fs::exists(path / "spiece.model") && !fs::exists(path / "tokenizer.json")) {
    if (const auto newest = CheckpointStore(path).newest_complete()) return *newest;
  }
  return path;  // what is missing is for its reader to report
}

}  // namespace switchyard
