// One client's completion on its way: its requests at the engine, and what has come of them so far.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "generate/text_stream.h"
#include "serve/completion.h"
#include "serve/engine.h"
#include "serve/statistics.h"

namespace switchyard {

// What the engine could not do.
class RequestFailed : public Error {
 public:
  using Error::Error;
};

class Conversation : public std::enable_shared_from_this<Conversation> {
 public:
  // Hands the requests to the engine. Vocabulary, engine and statistics outlive the conversation. Throws QueueFull,
  // Ending, or Error for a request that does not fit; then none of them is left there.
  static std::shared_ptr<Conversation> begin(Completion completion, const Vocabulary& vocabulary, Engine& engine,
                                             ServerStatistics& statistics);
  Conversation(const Conversation&) = delete;
  Conversation& operator=(const Conversation&) = delete;

  // Takes what has come, waiting for it for `patience` at most. Throws RequestFailed or Ending if a request failed.
  void wait(std::chrono::milliseconds patience);
  bool is_done() const { return num_ended_ == answers_.size(); }
  double seconds() const;  // since it began

  // What a stream's choices have added since the last call.
  std::vector<Piece> take_pieces() { return std::exchange(pieces_, {}); }

  const Completion& completion() const { return completion_; }
  const std::vector<Answered>& answers() const { return answers_; }  // whole once it is done

  // Cancels what has not ended; nothing comes after it. Whoever began must end, whatever happened.
  void end();

 private:
  // What the engine says, for the thread that answers.
  struct Letter {
    size_t number = 0;  // of the request
    size_t sample = 0;
    std::optional<int32_t> token = {};    // or
    std::optional<Answered> answer = {};  // the request's end, or
    std::string error = {};
  };

  Conversation(Completion completion, const Vocabulary& vocabulary, Engine& engine, ServerStatistics& statistics);
  void submit(size_t number);
  void submit_all();
  Answered with_scores(Answered answer) const;
  void note_token(size_t sample, int32_t id);
  void put(Letter letter);
  void read(Letter& letter);
  void stream_token(size_t sample, int32_t id);
  void stream_end(const Answered& answer);
  void add_piece(Piece piece);

  Completion completion_;
  const Vocabulary& vocabulary_;
  Engine& engine_;
  ServerStatistics& statistics_;
  double start_, last_token_ = 0.0;  // last_token_: the engine's thread's alone
  std::vector<uint64_t> tickets_;
  std::vector<Answered> answers_;
  size_t num_ended_ = 0;
  std::vector<TextStream> streams_;  // of a stream's samples
  std::vector<size_t> unshown_;      // bytes of each sample's text that still repeat the decoder's prompt
  std::vector<Piece> pieces_;
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<Letter> letters_;
};

}  // namespace switchyard
