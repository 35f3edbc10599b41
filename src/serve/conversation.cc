#include "serve/conversation.h"

#include <algorithm>

#include "base/clock.h"

namespace switchyard {

std::shared_ptr<Conversation> Conversation::begin(Completion completion, const Vocabulary& vocabulary, Engine& engine,
                                                  ServerStatistics& statistics) {
  std::shared_ptr<Conversation> talk(new Conversation(std::move(completion), vocabulary, engine, statistics));
  try {
    talk->submit_all();
  } catch (...) {
    talk->end();
    throw;
  }
  return talk;
}

Conversation::Conversation(Completion completion, const Vocabulary& vocabulary, Engine& engine,
                           ServerStatistics& statistics)
    : completion_(std::move(completion)),
      vocabulary_(vocabulary),
      engine_(engine),
      statistics_(statistics),
      start_(steady_seconds()),
      answers_(completion_.requests.size()) {}

void Conversation::submit_all() {
  if (!completion_.generates) {
    for (size_t n = 0; n < completion_.requests.size(); ++n) {
      const auto& request = completion_.requests[n];
      engine_.compute([&] { answers_[n] = with_scores({request, decoder_prompt_alone(request), {}}); });
      statistics_.tokens_in += static_cast<int64_t>(request.ids.size());
      ++num_ended_;
    }
    return;
  }
  if (completion_.stream) {
    const auto& request = completion_.requests[0];
    const auto samples = static_cast<size_t>(request.search.num_results);
    streams_.assign(samples, TextStream(vocabulary_, request.stop));
    unshown_.assign(samples, completion_.echo ? 0 : echoed_bytes(request, vocabulary_));
    if (request.search.beams.num_beams == 1)
      for (size_t sample = 0; sample < samples; ++sample)
        for (const int32_t id : request.prefix) stream_token(sample, id);
  }
  for (size_t number = 0; number < completion_.requests.size(); ++number) submit(number);
}

void Conversation::submit(size_t number) {
  const auto& request = completion_.requests[number];
  const auto self = shared_from_this();
  const Listener listener{.on_token = [self](size_t sample, int32_t id) { self->note_token(sample, id); },
                          .on_result =
                              [self, number](const Request& asked, const Result& result) {
                                Letter letter{.number = number, .error = result.error};
                                try {
                                  if (result.error.empty())
                                    letter.answer = self->with_scores({asked, result.outputs, {}});
                                } catch (const std::exception& error) {
                                  letter.error = error.what();
                                }
                                self->put(std::move(letter));
                              }};
  tickets_.push_back(engine_.submit(request, listener));
  statistics_.tokens_in += static_cast<int64_t>(request.ids.size());
}

// On the engine's thread.
Answered Conversation::with_scores(Answered answer) const {
  if (completion_.logprobs)
    for (const auto& output : answer.outputs)
      answer.scores.push_back(
          score_tokens(engine_.config(), engine_.weights(), answer.request.ids, output.ids, *completion_.logprobs));
  return answer;
}

// On the engine's thread.
void Conversation::note_token(size_t sample, int32_t id) {
  const double moment = steady_seconds();
  if (last_token_ == 0.0)
    statistics_.first_token.add(moment - start_);
  else
    statistics_.next_token.add(moment - last_token_);
  last_token_ = moment;
  if (completion_.stream) put({.sample = sample, .token = id});
}

void Conversation::put(Letter letter) {
  {
    const std::lock_guard lock(mutex_);
    letters_.push_back(std::move(letter));
  }
  arrived_.notify_one();
}

void Conversation::wait(std::chrono::milliseconds patience) {
  std::deque<Letter> letters;
  {
    std::unique_lock lock(mutex_);
    arrived_.wait_for(lock, patience, [&] { return !letters_.empty(); });
    letters.swap(letters_);
  }
  for (auto& letter : letters) read(letter);
}

void Conversation::read(Letter& letter) {
  if (letter.error == Engine::kEnded) throw Ending(letter.error);
  if (!letter.error.empty()) throw RequestFailed(letter.error);
  if (letter.token) return stream_token(letter.sample, *letter.token);
  answers_[letter.number] = std::move(*letter.answer);
  ++num_ended_;
  const auto& answer = answers_[letter.number];
  for (const auto& output : answer.outputs)
    statistics_.tokens_out += static_cast<int64_t>(output.ids.size() - answer.request.prefix.size());
  if (completion_.stream) stream_end(answer);
}

void Conversation::stream_token(size_t sample, int32_t id) {
  auto text = streams_[sample].add(id);
  if (!text.empty()) add_piece({.index = sample, .text = std::move(text)});
}

void Conversation::stream_end(const Answered& answer) {
  const auto& [request, outputs, scores] = answer;
  for (size_t sample = 0; sample < outputs.size(); ++sample) {
    // Beams are not told token by token: their text comes at the end.
    const bool was_told = request.search.beams.num_beams == 1;
    auto rest = was_told ? streams_[sample].finish() : output_text(request, outputs[sample], &vocabulary_);
    add_piece({.index = sample,
               .text = std::move(rest),
               .reason = finish_reason(request, outputs[sample], vocabulary_),
               .tokens = generated_ids(request, outputs[sample])});
  }
}

void Conversation::add_piece(Piece piece) {
  const size_t hidden = std::min(unshown_[piece.index], piece.text.size());
  unshown_[piece.index] -= hidden;
  piece.text.erase(0, hidden);
  if (!piece.text.empty() || piece.reason) pieces_.push_back(std::move(piece));
}

double Conversation::seconds() const { return steady_seconds() - start_; }

void Conversation::end() {
  const bool is_cut = !is_done();
  if (is_cut && !tickets_.empty()) ++statistics_.cancelled;
  for (const uint64_t ticket : std::exchange(tickets_, {}))
    if (is_cut) engine_.cancel(ticket);
  if (!is_cut) statistics_.request.add(seconds());
}

}  // namespace switchyard
