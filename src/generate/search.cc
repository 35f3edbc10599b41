#include "generate/search.h"

#include <ATen/ops/from_blob.h>
#include <ATen/ops/logsumexp.h>

#include <cmath>

#include "base/error.h"

namespace switchyard {
namespace {

// Greedy decoding and sampling: every output is a row of its own. Samples part at the first token.
class Sampling : public Search {
 public:
  Sampling(const SearchOptions& options, std::span<const int32_t> prefix, SearchHooks hooks)
      : options_(options), hooks_(std::move(hooks)), prefix_length_(prefix.size()) {
    results_.resize(static_cast<size_t>(options.num_results));
    Row row{{options.start_id}, 0.0, 0, results_.size()};
    row.history.insert(row.history.end(), prefix.begin(), prefix.end());
    rows_.push_back(std::move(row));
  }

  std::vector<Continuation> advance(std::span<float> logits) override {
    const size_t vocab_size = logits.size() / rows_.size();
    std::vector<Row> next;
    std::vector<Continuation> continuations;
    for (size_t index = 0; index < rows_.size(); ++index) {
      const Row& row = rows_[index];
      const auto scores = logits.subspan(index * vocab_size, vocab_size);
      const double log_sum = log_sum_exp(scores);
      const size_t position = row.history.size() - 1;
      SY_CHECK(std::isfinite(log_sum), "token ", position,
               ": the model's logits are not finite; check its weights, or try --dtype fp32");
      std::vector<float> unruled;
      if (changes_scores(options_.rules)) {
        unruled.assign(scores.begin(), scores.end());
        apply_rules(options_.rules, row.history, static_cast<int64_t>(position - prefix_length_), options_.eos_id,
                    scores);
      }
      for (size_t sample = row.first_sample; sample < row.end_sample; ++sample) {
        int32_t id = choose_token(options_.sampling, scores, options_.number, position, static_cast<uint32_t>(sample));
        if (id < 0) id = options_.eos_id;  // the rules leave nothing else
        const auto logit = unruled.empty() ? scores[static_cast<size_t>(id)] : unruled[static_cast<size_t>(id)];
        Row longer{row.history, row.score + logit - log_sum, sample, sample + 1};
        longer.history.push_back(id);
        if (hooks_.on_token) hooks_.on_token(sample, id);
        if (ends(longer)) {
          results_[sample] = {{longer.history.begin() + 1, longer.history.end()}, longer.score};
        } else {
          next.push_back(std::move(longer));
          continuations.push_back({index, id});
        }
      }
    }
    rows_ = std::move(next);
    return continuations;
  }

  Hypotheses results() const override { return results_; }

 private:
  struct Row {
    std::vector<int32_t> history;  // start token, prefix, generated tokens
    double score;
    size_t first_sample, end_sample;  // the samples that it stands for: all of them before the first token
  };

  static double log_sum_exp(std::span<float> scores) {
    return at::logsumexp(at::from_blob(scores.data(), {static_cast<int64_t>(scores.size())}, at::kFloat), 0)
        .item<double>();
  }

  bool ends(const Row& row) const {
    return row.history.back() == options_.eos_id ||
           row.history.size() - 1 - prefix_length_ == static_cast<size_t>(options_.max_tokens) ||
           (hooks_.stops && hooks_.stops(std::span(row.history).subspan(1)));
  }

  SearchOptions options_;
  SearchHooks hooks_;
  size_t prefix_length_;
  std::vector<Row> rows_;
  Hypotheses results_;
};

}  // namespace

void validate(const SearchOptions& options) {
  validate(options.rules);
  validate(options.sampling);
  const auto& beams = options.beams;
  // The bound keeps sums of lengths far from overflow; a cache of that length would not fit anyway.
  constexpr int64_t kMostTokens = int64_t{1} << 32;
  constexpr int64_t kMostRows = 1024;
  SY_CHECK(options.max_tokens >= 1 && options.max_tokens <= kMostTokens, "maximum of tokens ", options.max_tokens,
           ": expected 1 to ", kMostTokens);
  SY_CHECK(options.rules.min_tokens <= options.max_tokens, "minimum of tokens ", options.rules.min_tokens,
           " is above the maximum of ", options.max_tokens);
  SY_CHECK(beams.num_beams >= 1 && beams.num_beams <= kMostRows, "beams ", beams.num_beams, ": expected 1 to ",
           kMostRows);
  SY_CHECK(std::isfinite(beams.length_penalty), "length penalty ", beams.length_penalty, ": expected a finite number");
  SY_CHECK(beams.num_beams == 1 || options.sampling.temperature == 0, "beams ", beams.num_beams, " with temperature ",
           options.sampling.temperature, ": beam search does not sample; leave one of them out");
  const bool samples = options.sampling.temperature > 0;
  const int64_t most_results = samples ? kMostRows : beams.num_beams;
  SY_CHECK(options.num_results >= 1 && options.num_results <= most_results, "results ", options.num_results,
           ": expected 1 to ", most_results,
           samples ? "" : ", the number of beams; several outputs need as many beams, or a temperature");
}

int64_t most_rows(const SearchOptions& options) { return std::max(options.beams.num_beams, options.num_results); }

std::unique_ptr<Search> start_search(const SearchOptions& options, std::span<const int32_t> prefix, SearchHooks hooks) {
  if (options.beams.num_beams > 1) return start_beam_search(options, prefix, std::move(hooks));
  return std::make_unique<Sampling>(options, prefix, std::move(hooks));
}

}  // namespace switchyard
