#include "parallel/heartbeat.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <list>
#include <mutex>
#include <thread>

#include "base/clock.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "parallel/texts.h"

namespace switchyard {
namespace {

constexpr double kSilentBeats = 2.5;   // a rank that says nothing for so long is called dead
constexpr double kWatchedBeats = 3.2;  // for which the others are watched before that is said
constexpr double kStuckBeats = 5.0;    // a store that does not answer for so long is called gone
constexpr double kTellSeconds = 2.0;
constexpr double kGoodbyeSeconds = 10.0;
constexpr double kFirstPoll = 0.001, kLongestPoll = 0.05;  // seconds between calls of a step
const char* const kFailureKey = "failure";

std::string beat_key(int64_t rank) { return "beat/" + std::to_string(rank); }

struct Task {
  std::function<bool(TextStore&)> step;
  bool is_done = false;
};

}  // namespace

struct Heartbeat::State {
  std::shared_ptr<TextStore> store;
  HeartbeatOptions options;
  std::atomic<bool> has_failed = false;

  std::mutex mutex;  // of all below
  std::condition_variable changed;
  std::string failure;  // the cause, where has_failed
  Beat beat;
  double place_since = steady_seconds();
  bool beats_now = false, ends = false, has_stopped = false;  // what the thread is to do, and has done
  double answered_at = steady_seconds();                      // when the store last did
  std::list<std::shared_ptr<Task>> tasks;
  double watched_since = -1.0;  // negative: not watching
  std::vector<ObservedRank> ranks;
  std::vector<double> heard_at;

  // All with the mutex held.
  void fail(const std::string& cause) {
    if (!has_failed) failure = cause;
    has_failed = true;
    changed.notify_all();
  }
  bool is_watching() const { return watched_since >= 0.0; }
  bool is_stuck() const { return steady_seconds() - answered_at > kStuckBeats * options.beat_seconds; }
  std::string without_store(const std::string& how) const {
    return join("the store at which the ranks meet ", how, ": ", options.holder,
                " has it (killed, stopped or cut off)");
  }
  // Whether the ranks have been watched for long enough, or one has said that it failed.
  bool has_verdict() const {
    if (!is_watching() || ranks.empty()) return false;
    if (steady_seconds() - watched_since > kWatchedBeats * options.beat_seconds) return true;
    return std::any_of(ranks.begin(), ranks.end(),
                       [](const ObservedRank& rank) { return rank.beat.state == Beat::State::kFailed; });
  }
  void observe(int64_t rank, const std::string& text);

  // Without the mutex held, on the heartbeat's thread.
  void beat_once();
  bool work_once(double& next_beat, double& poll);
};

void Heartbeat::State::observe(int64_t rank, const std::string& text) {
  auto& seen = ranks[rank];
  auto said = parse_beat(text);
  const auto now = steady_seconds();
  if (!seen.connected || said.count != seen.beat.count) heard_at[rank] = now;
  seen.connected = true;
  seen.beat = std::move(said);
  seen.silent_seconds = now - heard_at[rank];
  seen.silent = seen.silent_seconds > kSilentBeats * options.beat_seconds;
}

void Heartbeat::State::beat_once() {
  std::string text;
  bool watching = false;
  {
    const std::lock_guard lock(mutex);
    ++beat.count;
    beat.seconds = steady_seconds() - place_since;
    text = beat_text(beat);
    watching = is_watching();
  }
  store->set(beat_key(options.rank), text);
  const auto told = store->find(kFailureKey);
  std::vector<std::pair<int64_t, std::string>> seen;
  for (int64_t rank = 0; watching && rank < options.num_ranks; ++rank)
    if (auto other = store->find(beat_key(rank))) seen.emplace_back(rank, std::move(*other));
  const std::lock_guard lock(mutex);
  answered_at = steady_seconds();
  if (told) fail(*told);
  if (!is_watching() || !watching) return;
  ranks.resize(options.num_ranks);
  heard_at.resize(options.num_ranks);
  for (const auto& [rank, beat_of_rank] : seen) observe(rank, beat_of_rank);
  changed.notify_all();
}

// False at the end.
bool Heartbeat::State::work_once(double& next_beat, double& poll) {
  std::list<std::shared_ptr<Task>> current;
  {
    std::unique_lock lock(mutex);
    const auto has_work = [&] { return beats_now || ends || tasks.size() > current.size(); };
    current = tasks;
    const auto seconds = std::max(0.0, next_beat - steady_seconds());
    changed.wait_for(lock, std::chrono::duration<double>(current.empty() ? seconds : std::min(seconds, poll)),
                     has_work);
    if (ends && !beats_now) return false;
    if (tasks.size() > current.size()) poll = kFirstPoll;
    current = tasks;
    if (beats_now) next_beat = 0.0;
    beats_now = false;
  }
  if (steady_seconds() >= next_beat) {
    beat_once();
    next_beat = steady_seconds() + options.beat_seconds;
  }
  std::vector<std::shared_ptr<Task>> done;
  for (const auto& task : current)
    if (task->step(*store)) done.push_back(task);
  poll = std::min(2.0 * poll, kLongestPoll);
  if (current.empty()) return true;
  const std::lock_guard lock(mutex);
  answered_at = steady_seconds();
  for (const auto& task : done) {
    task->is_done = true;
    tasks.remove(task);
  }
  changed.notify_all();
  return true;
}

void Heartbeat::run(const std::shared_ptr<State>& state) {
  std::string error;
  try {
    double next_beat = 0.0, poll = kFirstPoll;
    while (state->work_once(next_beat, poll)) {
    }
  } catch (const std::exception&) {
    error = "is gone";
  }
  const std::lock_guard lock(state->mutex);
  if (!error.empty()) state->fail(state->without_store(error));
  state->has_stopped = true;
  state->changed.notify_all();
}

Heartbeat::Heartbeat(std::shared_ptr<TextStore> store, const HeartbeatOptions& options)
    : state_(std::make_shared<State>()) {
  state_->store = std::move(store);
  state_->options = options;
  std::thread([state = state_] { run(state); }).detach();
}

Heartbeat::~Heartbeat() {
  const auto seconds = std::chrono::duration<double>(kGoodbyeSeconds);
  std::unique_lock lock(state_->mutex);
  const bool is_clean = state_->beat.state == Beat::State::kRunning && !state_->has_failed;
  state_->beat.state = is_clean ? Beat::State::kEnded : Beat::State::kFailed;
  state_->beats_now = true;
  state_->changed.notify_all();
  if (is_clean) {
    lock.unlock();
    until(kGoodbyeSeconds, [next = int64_t{0}, num_ranks = state_->options.num_ranks](TextStore& all) mutable {
      for (; next < num_ranks; ++next) {
        const auto text = all.find(beat_key(next));
        if (!text || parse_beat(*text).state == Beat::State::kRunning) return false;
      }
      return true;
    });
    lock.lock();
  } else if (state_->options.holds_store) {
    if (!state_->is_watching()) state_->watched_since = steady_seconds();
    // The others read here why the run failed.
    state_->changed.wait_for(lock, seconds, [&] {
      return state_->has_stopped ||
             (!state_->ranks.empty() &&
              std::all_of(state_->ranks.begin(), state_->ranks.end(), [](const ObservedRank& rank) {
                return !rank.connected || rank.silent || rank.beat.state != Beat::State::kRunning;
              }));
    });
  }
  state_->ends = true;
  state_->changed.notify_all();
  state_->changed.wait_for(lock, std::chrono::seconds(1), [&] { return state_->has_stopped; });
}

CollectivePlace Heartbeat::start(const std::string& kind, const std::string& group) {
  const std::lock_guard lock(state_->mutex);
  return {kind, group, ++state_->beat.started[group]};
}

void Heartbeat::enter(const CollectivePlace& place) {
  const std::lock_guard lock(state_->mutex);
  state_->beat.place = place;
  state_->place_since = steady_seconds();
}

void Heartbeat::leave() {
  const std::lock_guard lock(state_->mutex);
  state_->beat.place = {};
  state_->place_since = steady_seconds();
  state_->watched_since = -1.0;
  state_->ranks.clear();
}

bool Heartbeat::failed() const { return state_->has_failed; }

void Heartbeat::watch() {
  const std::lock_guard lock(state_->mutex);
  if (state_->is_watching()) return;
  state_->watched_since = steady_seconds();
  state_->ranks.clear();
  state_->beats_now = true;
  state_->changed.notify_all();
}

std::string Heartbeat::diagnose(const CollectivePlace& place, const std::vector<int64_t>& members) {
  watch();
  std::unique_lock lock(state_->mutex);
  auto& state = *state_;
  const auto is_known = [&] {
    return state.has_failed || state.has_stopped || state.has_verdict() || state.is_stuck() || interrupted();
  };
  while (!is_known()) state.changed.wait_for(lock, std::chrono::milliseconds(50));
  if (state.has_failed) return state.failure;
  std::string cause;
  if (state.is_stuck()) {
    cause = state.without_store("does not answer");
  } else if (!state.has_verdict()) {
    cause = "this rank is told to end";
  } else {
    cause = explain(place, members, state.options.rank, state.ranks);
    lock.unlock();
    const auto told = std::make_shared<std::string>();  // the first rank's cause stands for all
    const bool is_told = until(kTellSeconds, [told, cause](TextStore& all) {
      *told = all.set_if_absent(kFailureKey, cause);
      return true;
    });
    lock.lock();
    if (is_told) cause = *told;
  }
  state.fail(cause);
  return state.failure;
}

void Heartbeat::end_with_error() {
  const auto text = join("rank ", state_->options.rank, " has ended with an error of its own");
  until(kTellSeconds, [text](TextStore& all) { return !all.set_if_absent(kFailureKey, text).empty(); });
  const std::lock_guard lock(state_->mutex);
  state_->beat.state = Beat::State::kFailed;
}

std::optional<std::vector<std::string>> Heartbeat::gather(const std::string& prefix, int64_t index, int64_t size,
                                                          const std::string& mine, double seconds) {
  const auto all_key = prefix + "all", own_key = prefix + std::to_string(index);
  const auto joined = std::make_shared<std::string>();
  auto collect = [=, found = std::vector<std::string>{mine}](TextStore& all) mutable {
    while (static_cast<int64_t>(found.size()) < size) {
      auto text = all.find(prefix + std::to_string(found.size()));
      if (!text) return false;
      found.push_back(std::move(*text));
    }
    *joined = join_texts(found);
    all.set(all_key, *joined);
    return true;
  };
  auto take_part = [=, has_told = false](TextStore& all) mutable {
    if (!has_told) all.set(own_key, mine);
    has_told = true;
    auto text = all.find(all_key);
    if (text) *joined = std::move(*text);
    return text.has_value();
  };
  if (!(index == 0 ? until(seconds, collect) : until(seconds, take_part))) return std::nullopt;
  return split_texts(*joined);
}

bool Heartbeat::until(double seconds, std::function<bool(TextStore&)> step) {
  const auto task = std::make_shared<Task>(Task{std::move(step)});
  std::unique_lock lock(state_->mutex);
  if (state_->has_stopped) return false;
  state_->tasks.push_back(task);
  state_->changed.notify_all();
  state_->changed.wait_for(lock, std::chrono::duration<double>(seconds),
                           [&] { return task->is_done || state_->has_failed || state_->has_stopped; });
  state_->tasks.remove(task);
  return task->is_done;
}

}  // namespace switchyard
