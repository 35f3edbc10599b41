#include "serve/engine.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include "base/messages.h"

namespace switchyard {
namespace {

SessionOptions with_routing(SessionOptions options, ExpertLoad& load) {
  options.on_routing = [&load](const std::vector<SparseLayer>& layers) { load.add(layers); };
  return options;
}

}  // namespace

Engine::Engine(const ModelConfig& config, const ComputeWeights& weights, const Vocabulary* vocabulary,
               const EngineOptions& options)
    : config_(config),
      weights_(weights),
      options_(options),
      session_(config, weights, vocabulary, with_routing(options.session, expert_load_)),
      thread_([this, num_threads = at::get_num_threads()] { run(num_threads); }) {}

Engine::~Engine() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

uint64_t Engine::submit(Request request, Listener listener) {
  uint64_t id = 0;
  Work call([&] { id = take(std::move(request), std::move(listener)); });
  auto taken = call.get_future();
  {
    const std::lock_guard lock(mutex_);
    if (stop_) throw Ending(kEnded);
    // Those that come while rows are free wait for a moment only.
    const size_t waiting = waiting_ + submitting_, rows = static_cast<size_t>(options_.session.rows);
    if (waiting >= static_cast<size_t>(options_.queue) + (rows - std::min(rows, running_)))
      throw QueueFull(join(waiting, " requests wait already; try again later"));
    ++submitting_;
    calls_.push_back(std::move(call));
  }
  changed_.notify_all();
  taken.get();
  return id;
}

// On the thread.
uint64_t Engine::take(Request request, Listener listener) {
  {
    const std::lock_guard lock(mutex_);
    --submitting_;
  }
  const auto number = std::make_shared<uint64_t>();
  const auto ends = [this, number, tell = listener.on_result](const Request& asked, const Result& result) {
    listeners_.erase(*number);
    if (tell) tell(asked, result);
  };
  *number = session_.submit(std::move(request), {.on_token = listener.on_token, .on_result = ends});
  listeners_[*number] = std::move(listener);
  const std::lock_guard lock(mutex_);
  waiting_ = session_.num_waiting();
  return *number;
}

void Engine::cancel(uint64_t id) {
  Work call([&] {
    session_.cancel(id);
    listeners_.erase(id);
  });
  auto done = call.get_future();
  {
    const std::lock_guard lock(mutex_);
    if (stop_) return;
    calls_.push_back(std::move(call));
  }
  changed_.notify_all();
  done.get();
}

void Engine::compute(std::function<void()> work) {
  Work task(std::move(work));
  auto done = task.get_future();
  {
    const std::lock_guard lock(mutex_);
    if (stop_) throw Ending(kEnded);
    if (work_.size() >= static_cast<size_t>(options_.queue))
      throw QueueFull(join(work_.size(), " requests wait already; try again later"));
    work_.push_back(std::move(task));
  }
  changed_.notify_all();
  done.get();
}

int64_t Engine::num_waiting() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int64_t>(waiting_ + submitting_ + work_.size());
}

int64_t Engine::num_running() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int64_t>(running_);
}

void Engine::run(int num_threads) {
  at::set_num_threads(num_threads);
  const at::NoGradGuard no_grad;
  while (true) {
    std::deque<Work> calls;
    {
      std::unique_lock lock(mutex_);
      waiting_ = session_.num_waiting();
      running_ = session_.num_running();
      changed_.wait(lock, [&] { return stop_ || !calls_.empty() || !work_.empty() || !session_.is_idle(); });
      if (stop_ && calls_.empty() && work_.empty()) break;
      calls.swap(calls_);
      if (!work_.empty()) {
        calls.push_back(std::move(work_.front()));
        work_.pop_front();
      }
    }
    for (auto& call : calls) call();
    step();
  }
  for (auto& [id, listener] : listeners_)
    if (listener.on_result) listener.on_result({}, {.outputs = {}, .error = kEnded});
}

void Engine::step() {
  try {
    session_.step();
  } catch (const std::exception& error) {
    // What ran is lost; what waits is not.
    say("serve: a step failed: ", error.what());
    const Result failed{.outputs = {}, .error = join("the step failed: ", error.what())};
    std::vector<Listener> lost;
    for (auto at = listeners_.begin(); at != listeners_.end();) {
      if (session_.is_waiting(at->first)) {
        ++at;
        continue;
      }
      lost.push_back(std::move(at->second));
      at = listeners_.erase(at);
    }
    for (const auto& listener : lost)
      if (listener.on_result) listener.on_result({}, failed);
  }
}

}  // namespace switchyard
