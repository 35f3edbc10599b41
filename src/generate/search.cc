#include "generate/search.h"

#include <ATen/ops/logsumexp.h>

#include <cmath>

#include "base/error.h"

namespace switchyard {
namespace {

struct Row {
  size_t prompt;
  std::vector<int32_t> history;  // start token, prefix, generated tokens
  double score = 0.0;
};

}  // namespace

void validate(const SearchOptions& options) {
  validate(options.rules);
  validate(options.sampling);
  const auto& beams = options.beams;
  // The bound keeps sums of lengths far from overflow; a cache of that length would not fit anyway.
  constexpr int64_t kMostTokens = int64_t{1} << 32;
  SY_CHECK(options.max_tokens >= 1 && options.max_tokens <= kMostTokens, "maximum of tokens ", options.max_tokens,
           ": expected 1 to ", kMostTokens);
  SY_CHECK(options.rules.min_tokens <= options.max_tokens, "minimum of tokens ", options.rules.min_tokens,
           " is above the maximum of ", options.max_tokens);
  SY_CHECK(beams.num_beams >= 1 && beams.num_beams <= 1024, "beams ", beams.num_beams, ": expected 1 to 1024");
  SY_CHECK(beams.num_results >= 1 && beams.num_results <= beams.num_beams, "results ", beams.num_results,
           ": expected 1 to the number of beams, ", beams.num_beams);
  SY_CHECK(std::isfinite(beams.length_penalty), "length penalty ", beams.length_penalty, ": expected a finite number");
  SY_CHECK(beams.num_beams == 1 || options.sampling.temperature == 0, "beams ", beams.num_beams, " with temperature ",
           options.sampling.temperature, ": beam search does not sample; leave one of them out");
}

std::vector<Hypotheses> sample(NextTokens& model, std::span<const std::vector<int32_t>> prefixes,
                               const SearchOptions& options) {
  std::vector<Hypotheses> results(prefixes.size());
  std::vector<Row> rows;
  for (size_t prompt = 0; prompt < prefixes.size(); ++prompt) rows.push_back({prompt, {options.start_id}});

  for (size_t position = 0; !rows.empty(); ++position) {
    std::vector<int32_t> last;
    for (const auto& row : rows) last.push_back(row.history.back());
    const auto logits = model.advance(last);
    const auto log_sums = at::logsumexp(logits, -1);  // [rows]: log-probability = logit - log_sum
    const auto vocab_size = static_cast<size_t>(logits.size(1));
    float* const data = logits.mutable_data_ptr<float>();

    std::vector<Row> next;
    std::vector<int64_t> kept;
    for (size_t index = 0; index < rows.size(); ++index) {
      Row& row = rows[index];
      const auto& prefix = prefixes[row.prompt];
      const std::span<float> scores(data + index * vocab_size, vocab_size);
      bool ends = false;
      if (position < prefix.size()) {
        row.history.push_back(prefix[position]);
      } else {
        const auto log_sum = static_cast<double>(log_sums.const_data_ptr<float>()[index]);
        SY_CHECK(std::isfinite(log_sum), "decoding, prompt ", options.first_prompt + row.prompt + 1, ", token ",
                 position, ": the model's logits are not finite; check its weights, or try --dtype fp32");
        const size_t num_generated = position - prefix.size();
        std::vector<float> unruled;
        if (changes_scores(options.rules)) {
          unruled.assign(scores.begin(), scores.end());
          apply_rules(options.rules, row.history, static_cast<int64_t>(num_generated), options.eos_id, scores);
        }
        int32_t id = choose_token(options.sampling, scores, options.first_prompt + row.prompt, position);
        if (id < 0) id = options.eos_id;  // the rules leave nothing else
        row.score += (unruled.empty() ? scores[static_cast<size_t>(id)] : unruled[static_cast<size_t>(id)]) - log_sum;
        row.history.push_back(id);
        if (options.on_token) options.on_token(row.prompt, id);
        ends = id == options.eos_id || num_generated + 1 == static_cast<size_t>(options.max_tokens) ||
               (options.stops && options.stops(std::span(row.history).subspan(1)));
      }
      if (ends) {
        results[row.prompt] = {{{row.history.begin() + 1, row.history.end()}, row.score}};
      } else {
        next.push_back(std::move(row));
        kept.push_back(static_cast<int64_t>(index));
      }
    }
    if (!next.empty() && next.size() < rows.size()) model.select_rows(kept);
    rows = std::move(next);
  }
  return results;
}

std::vector<Hypotheses> search(NextTokens& model, std::span<const std::vector<int32_t>> prefixes,
                               const SearchOptions& options) {
  validate(options);
  return options.beams.num_beams > 1 ? beam_search(model, prefixes, options) : sample(model, prefixes, options);
}

}  // namespace switchyard
