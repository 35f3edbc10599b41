#include "serve/engine.h"

#include "base/messages.h"

namespace switchyard {

Engine::Engine(const ModelConfig& config, const ComputeWeights& weights, const Vocabulary* vocabulary,
               const EngineOptions& options)
    : options_(options), session_(config, weights, vocabulary, options.session), thread_([this] { run(); }) {}

Engine::~Engine() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

uint64_t Engine::submit(Request request, Listener listener) {
  std::promise<uint64_t> taken;
  auto id = taken.get_future();
  {
    const std::lock_guard lock(mutex_);
    SY_CHECK(!stop_, "the server has ended");
    if (waiting_ + submitting_ >= static_cast<size_t>(options_.queue))
      throw QueueFull(join(waiting_ + submitting_, " requests wait already; try again later"));
    ++submitting_;
    calls_.push_back([&] {
      try {
        taken.set_value(take(std::move(request), std::move(listener)));
      } catch (...) {
        taken.set_exception(std::current_exception());
      }
    });
  }
  changed_.notify_all();
  return id.get();
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
  return *number;
}

void Engine::cancel(uint64_t id) {
  std::promise<void> done;
  {
    const std::lock_guard lock(mutex_);
    if (stop_) return;
    calls_.push_back([&] {
      session_.cancel(id);
      listeners_.erase(id);
      done.set_value();
    });
  }
  changed_.notify_all();
  done.get_future().get();
}

int64_t Engine::num_waiting() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int64_t>(waiting_ + submitting_);
}

int64_t Engine::num_running() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int64_t>(running_);
}

void Engine::run() {
  while (true) {
    std::deque<std::function<void()>> calls;
    {
      std::unique_lock lock(mutex_);
      waiting_ = session_.num_waiting();
      running_ = session_.num_running();
      changed_.wait(lock, [&] { return stop_ || !calls_.empty() || !session_.is_idle(); });
      calls.swap(calls_);
    }
    for (auto& call : calls) call();
    {
      const std::lock_guard lock(mutex_);
      waiting_ = session_.num_waiting();
      if (stop_ && calls_.empty()) break;
    }
    try {
      session_.step();
    } catch (const std::exception& error) {
      // What ran is lost; what waits is not, and has not been told anything.
      say("serve: a step failed: ", error.what());
      const Result failed{.outputs = {}, .error = join("the step failed: ", error.what())};
      auto lost = std::move(listeners_);
      listeners_.clear();
      for (auto& [id, listener] : lost) {
        session_.cancel(id);
        if (listener.on_result) listener.on_result({}, failed);
      }
    }
  }
  for (auto& [id, listener] : listeners_)
    if (listener.on_result) listener.on_result({}, {.outputs = {}, .error = "the server has ended"});
}

}  // namespace switchyard
