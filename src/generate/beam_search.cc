// Beam search as Hugging Face's `_beam_search` (transformers 4.50 and later): candidates are the 2 * num_beams best
// continuations of all beams; those among the first num_beams of them that end become finished sequences, the best
// num_beams of the others run on; finished sequences are ranked by score / length^length_penalty.
//
// Different from HF in form only: the first step has one row instead of num_beams equal ones, sums are f64, and equal
// scores are ordered by beam, then by token.
#include <ATen/ops/from_blob.h>
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
  size_t row = 0;                // of the present step
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
    const float* const row = log_probs + beams[beam].row * vocab_size;
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

class BeamSearch : public Search {
 public:
  BeamSearch(const SearchOptions& options, std::span<const int32_t> prefix, SearchHooks hooks)
      : options_(options), hooks_(std::move(hooks)), prefix_length_(prefix.size()) {
    Beam beam{{options.start_id}};
    beam.history.insert(beam.history.end(), prefix.begin(), prefix.end());
    running_.push_back(std::move(beam));
  }

  std::vector<Continuation> advance(std::span<float> logits) override {
    const size_t vocab_size = logits.size() / running_.size(), position = running_[0].history.size() - 1;
    const auto num_generated = static_cast<int64_t>(position - prefix_length_);
    auto log_probs = at::log_softmax(
        at::from_blob(logits.data(), {static_cast<int64_t>(running_.size()), static_cast<int64_t>(vocab_size)},
                      at::kFloat),
        -1);
    float* const data = log_probs.mutable_data_ptr<float>();
    for (const auto& beam : running_) {
      const std::span<float> scores(data + beam.row * vocab_size, vocab_size);
      SY_CHECK(!holds_nan(scores), "token ", position,
               ": the model's logits are not finite; check its weights, or try --dtype fp32");
      apply_rules(options_.rules, beam.history, num_generated, options_.eos_id, scores);
    }
    std::vector<Continuation> continuations;
    if (!extend(data, vocab_size, num_generated + 1)) return continuations;
    for (auto& beam : running_) {
      continuations.push_back({beam.row, beam.history.back()});
      beam.row = continuations.size() - 1;
    }
    return continuations;
  }

  Hypotheses results() const override {
    const auto count = std::min(finished_.size(), static_cast<size_t>(options_.num_results));
    return {finished_.begin(), finished_.begin() + static_cast<std::ptrdiff_t>(count)};
  }

 private:
  double normalized(double score, int64_t length) const {
    return score / std::pow(static_cast<double>(length), options_.beams.length_penalty);
  }

  // `generated` counts the generated tokens with this one. Returns false when the search is done.
  bool extend(const float* log_probs, size_t vocab_size, int64_t generated) {
    const auto num_beams = static_cast<size_t>(options_.beams.num_beams);
    const auto candidates = best_continuations(running_, log_probs, vocab_size, 2 * num_beams);
    if (candidates.empty()) {  // the rules leave no token at all: the beams end as they are
      for (const auto& beam : running_)
        add_finished(finished_, finish(beam, normalized(beam.score, std::max<int64_t>(1, generated - 1))), num_beams);
      return false;
    }
    std::vector<Beam> next;
    for (size_t rank = 0; rank < candidates.size(); ++rank) {
      const auto& [score, parent, id] = candidates[rank];
      Beam beam{running_[parent].history, score, running_[parent].row};
      beam.history.push_back(id);
      const bool ends = id == options_.eos_id || generated == options_.max_tokens ||
                        (hooks_.stops && hooks_.stops(std::span(beam.history).subspan(1)));
      if (!ends && next.size() < num_beams) next.push_back(std::move(beam));
      // Ends that rank lower are no results: they only kept num_beams beams running.
      else if (ends && rank < num_beams)
        add_finished(finished_, finish(beam, normalized(score, generated)), num_beams);
    }
    running_ = std::move(next);
    return !running_.empty() && can_improve(generated);
  }

  bool can_improve(int64_t generated) const {
    if (finished_.size() < static_cast<size_t>(options_.beams.num_beams)) return true;
    if (options_.beams.early_stopping == EarlyStopping::kAlways) return false;
    const bool at_full_length =
        options_.beams.early_stopping == EarlyStopping::kNever && options_.beams.length_penalty > 0;
    return normalized(running_[0].score, at_full_length ? options_.max_tokens : generated) > finished_.back().score;
  }

  SearchOptions options_;
  SearchHooks hooks_;
  size_t prefix_length_;
  std::vector<Beam> running_;  // best first
  Hypotheses finished_;        // best first, at most num_beams
};

}  // namespace

std::unique_ptr<Search> start_beam_search(const SearchOptions& options, std::span<const int32_t> prefix,
                                          SearchHooks hooks) {
  return std::make_unique<BeamSearch>(options, prefix, std::move(hooks));
}

}  // namespace switchyard
