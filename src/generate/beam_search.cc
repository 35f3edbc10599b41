// Beam search as Hugging Face's `_beam_search` (transformers 4.50 and later): candidates are the 2 * num_beams best
// continuations of all beams; those among the first num_beams of them that end become finished sequences, the best
// num_beams of the others run on; finished sequences are ranked by score / length^length_penalty.
//
// Different from HF in form only: each prompt has its own state and leaves the batch when it is done, the first step
// has one row a prompt instead of num_beams equal ones, sums are f64, and equal scores are ordered by beam, then by
// token.
#include <ATen/ops/log_softmax.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "generate/search.h"

namespace switchyard {
namespace {

struct Beam {
  std::vector<int32_t> history;  // start token, prefix, generated tokens
  double score = 0.0;            // sum of log-probabilities after the rules
  int64_t row = 0;               // of the model, where the beam's state lies
};

struct PromptSearch {
  size_t prompt;
  std::vector<Beam> running;  // best first
  Hypotheses finished;        // best first, at most num_beams
};

struct Candidate {
  double score;
  size_t beam;
  int32_t id;
};

bool better(const Candidate& a, const Candidate& b) {
  if (a.score != b.score) return a.score > b.score;
  return a.beam != b.beam ? a.beam < b.beam : a.id < b.id;
}

// The `count` best continuations of all beams, best first; forbidden ones (-inf) are left out.
std::vector<Candidate> best_continuations(const std::vector<Beam>& beams, const float* log_probs, size_t vocab_size,
                                          size_t count) {
  std::vector<Candidate> best;  // a heap with the worst on top
  for (size_t beam = 0; beam < beams.size(); ++beam) {
    const float* const row = log_probs + static_cast<size_t>(beams[beam].row) * vocab_size;
    double threshold =
        best.size() == count ? best.front().score - beams[beam].score : -std::numeric_limits<double>::infinity();
    for (size_t id = 0; id < vocab_size; ++id) {
      if (!(row[id] > threshold)) continue;
      if (best.size() == count) {
        std::pop_heap(best.begin(), best.end(), better);
        best.pop_back();
      }
      best.push_back({beams[beam].score + row[id], beam, static_cast<int32_t>(id)});
      std::push_heap(best.begin(), best.end(), better);
      if (best.size() == count) threshold = best.front().score - beams[beam].score;
    }
  }
  std::sort(best.begin(), best.end(), better);
  return best;
}

bool holds_nan(std::span<const float> scores) {
  bool found = false;
  for (const float score : scores) found |= std::isnan(score);
  return found;
}

Hypothesis finish(const Beam& beam, double score) { return {{beam.history.begin() + 1, beam.history.end()}, score}; }

void add_finished(Hypotheses& finished, Hypothesis hypothesis, size_t num_beams) {
  const auto place = std::upper_bound(finished.begin(), finished.end(), hypothesis,
                                      [](const Hypothesis& a, const Hypothesis& b) { return a.score > b.score; });
  finished.insert(place, std::move(hypothesis));
  if (finished.size() > num_beams) finished.pop_back();
}

// One step of one prompt; `generated` counts its generated tokens with this one. Returns false when it is done.
bool extend(PromptSearch& state, const float* log_probs, size_t vocab_size, int64_t generated,
            const SearchOptions& options) {
  const auto& settings = options.beams;
  const auto num_beams = static_cast<size_t>(settings.num_beams);
  const auto normalized = [&](double score, int64_t length) {
    return score / std::pow(static_cast<double>(length), settings.length_penalty);
  };
  const auto candidates = best_continuations(state.running, log_probs, vocab_size, 2 * num_beams);
  if (candidates.empty()) {  // the rules leave no token at all: the beams end as they are
    for (const auto& beam : state.running)
      add_finished(state.finished, finish(beam, normalized(beam.score, std::max<int64_t>(1, generated - 1))),
                   num_beams);
    return false;
  }
  std::vector<Beam> next;
  for (size_t rank = 0; rank < candidates.size(); ++rank) {
    const auto& [score, parent, id] = candidates[rank];
    Beam beam{state.running[parent].history, score, state.running[parent].row};
    beam.history.push_back(id);
    const bool ends = id == options.eos_id || generated == options.max_tokens ||
                      (options.stops && options.stops(std::span(beam.history).subspan(1)));
    if (!ends && next.size() < num_beams) next.push_back(std::move(beam));
    // Ends that rank lower are no results: they only kept num_beams beams running.
    else if (ends && rank < num_beams)
      add_finished(state.finished, finish(beam, normalized(score, generated)), num_beams);
  }
  state.running = std::move(next);
  if (state.running.empty()) return false;
  if (state.finished.size() < num_beams) return true;
  if (settings.early_stopping == EarlyStopping::kAlways) return false;
  const bool at_full_length = settings.early_stopping == EarlyStopping::kNever && settings.length_penalty > 0;
  const double best_possible = normalized(state.running[0].score, at_full_length ? options.max_tokens : generated);
  return best_possible > state.finished.back().score;
}

}  // namespace

std::vector<Hypotheses> beam_search(NextTokens& model, std::span<const std::vector<int32_t>> prefixes,
                                    const SearchOptions& options) {
  std::vector<Hypotheses> results(prefixes.size());
  std::vector<PromptSearch> active;
  for (size_t prompt = 0; prompt < prefixes.size(); ++prompt)
    active.push_back({prompt, {{{options.start_id}, 0.0, static_cast<int64_t>(prompt)}}, {}});
  std::vector<int32_t> last(prefixes.size(), options.start_id);

  for (size_t position = 0; !active.empty(); ++position) {
    const auto log_probs = at::log_softmax(model.advance(last), -1);
    const auto vocab_size = static_cast<size_t>(log_probs.size(1));
    float* const data = log_probs.mutable_data_ptr<float>();
    std::vector<PromptSearch> next;
    for (auto& state : active) {
      const auto& prefix = prefixes[state.prompt];
      if (position < prefix.size()) {
        for (auto& beam : state.running) beam.history.push_back(prefix[position]);
        next.push_back(std::move(state));
        continue;
      }
      const auto num_generated = static_cast<int64_t>(position - prefix.size());
      for (const auto& beam : state.running) {
        const std::span<float> scores(data + static_cast<size_t>(beam.row) * vocab_size, vocab_size);
        SY_CHECK(!holds_nan(scores), "decoding, prompt ", options.first_prompt + state.prompt + 1, ", token ", position,
                 ": the model's logits are not finite; check its weights, or try --dtype fp32");
        apply_rules(options.rules, beam.history, num_generated, options.eos_id, scores);
      }
      if (extend(state, data, vocab_size, num_generated + 1, options)) {
        next.push_back(std::move(state));
      } else {
        const auto count = std::min(state.finished.size(), static_cast<size_t>(options.beams.num_results));
        results[state.prompt].assign(state.finished.begin(),
                                     state.finished.begin() + static_cast<std::ptrdiff_t>(count));
      }
    }
    active = std::move(next);

    const size_t old_rows = last.size();
    std::vector<int64_t> rows;
    last.clear();
    for (auto& state : active)
      for (auto& beam : state.running) {
        rows.push_back(beam.row);
        last.push_back(beam.history.back());
        beam.row = static_cast<int64_t>(rows.size()) - 1;
      }
    bool moved = rows.size() != old_rows;
    for (size_t row = 0; row < rows.size(); ++row) moved |= rows[row] != static_cast<int64_t>(row);
    if (moved && !rows.empty()) model.select_rows(rows);
  }
  return results;
}

}  // namespace switchyard
