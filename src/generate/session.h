// A running batch over one model: requests are submitted, every step advances all of them by one token, rows join and
// leave between steps.
//
// A result depends on its request alone, to the bit, whatever else is decoded beside it and in whatever order:
//   - every prompt passes the encoder as if by itself (generate/prompt.h);
//   - tokens are never dropped in decoding: an expert takes every token routed to it;
//   - a decoding step has at most so many rows as its products treat alike (kernels/product.h);
//   - noise is drawn by (seed, number of the request, position), never by slot.
// Not thread-safe: a server has one thread step and submit.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "generate/prompt.h"
#include "generate/request.h"
#include "model/decoder_cache.h"

namespace switchyard {

struct SessionOptions {
  int64_t rows = 8;                 // sequences decoded together: every beam and sample is one
  int64_t max_length = 512;         // positions of a sequence: prefix and generated tokens
  RoutingListener on_routing = {};  // of every pass, in step()
};

// How a request ended. `error` is empty if it went well.
struct Result {
  Hypotheses outputs = {};  // as start_search() gives them
  std::string error = {};
};

// Who hears of a request. Called at the end of a step, when the session is whole: both may submit and cancel. Either
// may be empty.
struct Listener {
  std::function<void(size_t sample, int32_t id)> on_token = {};  // in order; not with beams; a prefix is not told
  std::function<void(const Request&, const Result&)> on_result = {};
};

class Session {
 public:
  // The model and the vocabulary must outlive the session. The vocabulary may be null: then requests have no stop
  // strings. Throws Error if an option is out of range, or the model has no decoder.
  Session(const ModelConfig& config, const ComputeWeights& weights, const Vocabulary* vocabulary,
          const SessionOptions& options);

  // Queues a request; it starts when enough rows are free, in the order of submission. Throws Error if it does not fit:
  // options out of range, an empty prompt or only padding, ids outside the model's vocabulary, more rows or positions
  // than the session has.
  uint64_t submit(Request request, Listener listener);

  // Ends a request wherever it is; its listener hears nothing more. False if it is not there (any more).
  bool cancel(uint64_t id);

  // Whether a request is there that has not started.
  bool is_waiting(uint64_t id) const;

  // Starts what can start, advances everything that runs by one token and tells the listeners. False if there is
  // nothing to do. After an exception the running requests are lost; those that wait are not.
  bool step();

  bool is_idle() const { return waiting_.empty() && running_.empty(); }
  size_t num_waiting() const { return waiting_.size(); }
  size_t num_running() const { return running_.size(); }

 private:
  struct Running {
    uint64_t id;
    Request request;
    Listener listener;
    std::unique_ptr<Search> search = {};
    std::vector<int64_t> slots = {};                      // of its rows
    std::vector<int32_t> next = {};                       // the rows' next inputs
    std::vector<std::pair<size_t, int32_t>> tokens = {};  // chosen in this step: sample and id
    Result result = {};
    bool done = false;
  };
  void start_waiting();
  void start(Running& running, const EncodedPrompt& encoded);
  at::Tensor decode(const std::vector<int64_t>& slots, const at::Tensor& ids);
  void advance_all();
  void advance(Running& running, std::span<float> logits);
  void tell();

  const ModelConfig& config_;
  const ComputeWeights& weights_;
  const Vocabulary* vocabulary_;
  SessionOptions options_;
  DecoderCache cache_;
  uint64_t next_id_ = 0;
  std::list<Running> waiting_, running_;
};

// The results of all requests, in their order. Throws Error if one does not fit or fails, naming it by its number,
// counted from 1.
std::vector<Hypotheses> generate_all(const ModelConfig& config, const ComputeWeights& weights,
                                     const Vocabulary* vocabulary, const std::vector<Request>& requests,
                                     const SessionOptions& options);

}  // namespace switchyard
