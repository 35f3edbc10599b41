// One thread that runs a session for many others: requests come in from any thread, what becomes of them is told to
// their listeners.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <map>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "generate/session.h"
#include "serve/expert_load.h"

namespace switchyard {

// There is no room for another request now.
class QueueFull : public Error {
 public:
  using Error::Error;
};

// The server is about to end, or has ended.
class Ending : public Error {
 public:
  using Error::Error;
};

struct EngineOptions {
  SessionOptions session;
  int64_t queue = 64;  // requests that may wait for free rows, and other work that may wait
};

class Engine {
 public:
  // Model and vocabulary outlive the engine. The thread computes with as many threads as the caller's.
  Engine(const ModelConfig& config, const ComputeWeights& weights, const Vocabulary* vocabulary,
         const EngineOptions& options);
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  ~Engine();  // running and waiting requests end with the error kEnded

  static constexpr const char* kEnded = "the server has ended";

  // Returns when the session has taken the request, with a number for cancel(). Listeners are called on the engine's
  // thread and must not wait for others. Throws QueueFull, Ending, or Error as Session::submit() for what does not fit.
  uint64_t submit(Request request, Listener listener);
  // Its listener hears nothing more once this returns. Not called by a listener.
  void cancel(uint64_t id);
  // Other work with the model, between two steps; one such a step. Returns when it is done and throws what it throws,
  // QueueFull or Ending.
  void compute(std::function<void()> work);

  int64_t num_waiting() const;
  int64_t num_running() const;
  const EngineOptions& options() const { return options_; }
  const ModelConfig& config() const { return config_; }
  const ComputeWeights& weights() const { return weights_; }
  const ExpertLoad& expert_load() const { return expert_load_; }

 private:
  using Work = std::packaged_task<void()>;
  void run(int num_threads);
  void step();
  uint64_t take(Request request, Listener listener);

  const ModelConfig& config_;
  const ComputeWeights& weights_;
  const EngineOptions options_;
  ExpertLoad expert_load_;
  Session session_;  // the thread's alone
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Work> calls_;  // to be made on the thread: short ones
  std::deque<Work> work_;   // one a step
  size_t waiting_ = 0, running_ = 0, submitting_ = 0;
  std::map<uint64_t, Listener> listeners_;  // the thread's alone: of those that have not ended
  bool stop_ = false;
  std::thread thread_;  // last member: it starts when the others are initialised
};

}  // namespace switchyard
