#include "generate/generate.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "model/decoder_cache.h"

namespace switchyard {
namespace {

// `number` counts from 0 here, and from 1 in messages.
void check_sequence(std::span<const int32_t> ids, int64_t vocab_size, const char* what, uint64_t number) {
  for (const int32_t id : ids)
    SY_CHECK(id >= 0 && id < vocab_size, what, " ", number + 1, ": id ", id, " lies outside the model's vocabulary of ",
             vocab_size);
}

void check_prompt(std::span<const int32_t> ids, int64_t vocab_size, uint64_t number) {
  SY_CHECK(std::any_of(ids.begin(), ids.end(), [](int32_t id) { return id != 0; }), "prompt ", number + 1,
           " is empty: expected at least one token that is not padding (id 0)");
  check_sequence(ids, vocab_size, "prompt", number);
}

struct PaddedRows {
  at::Tensor ids;   // [rows, length] i64, 0 after each sequence's end
  at::Tensor mask;  // [rows, length] bool: not padding; undefined if nothing is
};

PaddedRows pad(const std::vector<std::span<const int32_t>>& sequences) {
  size_t length = 0;
  for (const auto& sequence : sequences) length = std::max(length, sequence.size());
  PaddedRows rows{at::zeros({static_cast<int64_t>(sequences.size()), static_cast<int64_t>(length)}, at::kLong), {}};
  int64_t* const ids = rows.ids.mutable_data_ptr<int64_t>();
  for (size_t row = 0; row < sequences.size(); ++row)
    std::copy(sequences[row].begin(), sequences[row].end(), ids + row * length);
  rows.mask = rows.ids.ne(0);
  if (rows.mask.all().item<bool>()) rows.mask.reset();
  return rows;
}

ForwardOptions encoder_options(const ModelConfig& config) {
  return {.drop_tokens = config.routing.group_size == 0 && config.routing.expert_capacity > 0};
}

// The decoder with its cache as a search sees it.
class DecoderRows : public NextTokens {
 public:
  DecoderRows(const ModelConfig& config, const ComputeWeights& weights, const PaddedRows& prompts, int64_t num_beams,
              int64_t max_length)
      : config_(config), weights_(weights), cache_(config, weights, prompts.ids.size(0) * num_beams, max_length) {
    const auto encoded = encode(config, weights, prompts.ids, prompts.mask, encoder_options(config));
    slots_ = cache_.add_rows(weights, encoded.hidden, prompts.mask);
  }

  at::Tensor advance(std::span<const int32_t> ids) override {
    auto column = at::empty({static_cast<int64_t>(ids.size()), 1}, at::kLong);
    std::copy(ids.begin(), ids.end(), column.mutable_data_ptr<int64_t>());
    const auto hidden = decode_step(config_, weights_, cache_, slots_, column.to(weights_.output.device()));
    return output_logits(weights_, hidden.select(1, 0)).to(at::kCPU, at::kFloat).contiguous();
  }

  void select_rows(std::span<const int64_t> rows) override {
    std::vector<int64_t> parents;
    for (const int64_t row : rows) parents.push_back(slots_[static_cast<size_t>(row)]);
    slots_ = cache_.replace_rows(slots_, parents);
  }

 private:
  const ModelConfig& config_;
  const ComputeWeights& weights_;
  DecoderCache cache_;
  std::vector<int64_t> slots_;  // of each row
};

}  // namespace

std::vector<Hypotheses> generate(const ModelConfig& config, const ComputeWeights& weights,
                                 const std::vector<Prompt>& prompts, const GenerateOptions& options) {
  const at::NoGradGuard no_grad;
  validate(options.search);
  SY_CHECK(options.batch_size >= 1, "batch size ", options.batch_size, ": expected 1 or more");
  const auto& bad_words = options.search.rules.bad_words;
  for (size_t number = 0; number < bad_words.size(); ++number)
    check_sequence(bad_words[number], config.vocab_size, "bad word", number);
  for (size_t n = 0; n < prompts.size(); ++n) {
    check_prompt(prompts[n].ids, config.vocab_size, options.search.first_prompt + n);
    check_sequence(prompts[n].prefix, config.vocab_size, "prefix of prompt", options.search.first_prompt + n);
  }

  std::vector<Hypotheses> results;
  for (size_t first = 0; first < prompts.size(); first += static_cast<size_t>(options.batch_size)) {
    const size_t end = std::min(prompts.size(), first + static_cast<size_t>(options.batch_size));
    std::vector<std::span<const int32_t>> ids;
    std::vector<std::vector<int32_t>> prefixes;
    size_t longest_prefix = 0;
    for (size_t number = first; number < end; ++number) {
      ids.emplace_back(prompts[number].ids);
      prefixes.push_back(prompts[number].prefix);
      longest_prefix = std::max(longest_prefix, prompts[number].prefix.size());
    }
    SearchOptions batch_options = options.search;
    batch_options.first_prompt += first;
    if (options.search.on_token)
      batch_options.on_token = [&, first](size_t prompt, int32_t id) { options.search.on_token(first + prompt, id); };
    DecoderRows rows(config, weights, pad(ids), options.search.beams.num_beams,
                     static_cast<int64_t>(longest_prefix) + options.search.max_tokens);
    auto batch = search(rows, prefixes, batch_options);
    std::move(batch.begin(), batch.end(), std::back_inserter(results));
  }
  return results;
}

std::vector<Scored> score_targets(const ModelConfig& config, const ComputeWeights& weights,
                                  const std::vector<std::vector<int32_t>>& prompts,
                                  const std::vector<std::vector<int32_t>>& targets, int64_t batch_size) {
  const at::NoGradGuard no_grad;
  SY_CHECK(prompts.size() == targets.size(), "scoring: ", prompts.size(), " prompts but ", targets.size(), " targets");
  SY_CHECK(batch_size >= 1, "batch size ", batch_size, ": expected 1 or more");
  for (size_t number = 0; number < prompts.size(); ++number) {
    check_prompt(prompts[number], config.vocab_size, number);
    check_sequence(targets[number], config.vocab_size, "target", number);
    SY_CHECK(!targets[number].empty(), "target ", number + 1, " is empty");
  }

  std::vector<Scored> results;
  for (size_t first = 0; first < prompts.size(); first += static_cast<size_t>(batch_size)) {
    const size_t end = std::min(prompts.size(), first + static_cast<size_t>(batch_size));
    const auto input =
        pad({prompts.begin() + static_cast<std::ptrdiff_t>(first), prompts.begin() + static_cast<std::ptrdiff_t>(end)});
    const auto output =
        pad({targets.begin() + static_cast<std::ptrdiff_t>(first), targets.begin() + static_cast<std::ptrdiff_t>(end)});
    const auto encoded = encode(config, weights, input.ids, input.mask, encoder_options(config));
    // No decoder mask: a target may hold id 0, and what follows a target's end reaches none of its positions.
    const auto decoded =
        decode(config, weights, shift_right(output.ids), {}, encoded.hidden, input.mask, {.drop_tokens = false});
    for (size_t number = first; number < end; ++number) {
      // Row by row: logits of a whole batch would take [batch, length, vocab].
      const auto row = static_cast<int64_t>(number - first);
      const auto length = static_cast<int64_t>(targets[number].size());
      const auto logits =
          output_logits(weights, decoded.hidden.select(0, row).slice(0, 0, length)).to(at::kDouble);  // [length, vocab]
      const auto of_targets =
          logits.gather(-1, output.ids.select(0, row).slice(0, 0, length).unsqueeze(-1)).squeeze(-1);
      const at::Tensor log_probabilities = (of_targets - at::logsumexp(logits, -1)).to(at::kCPU).contiguous();
      const double* const values = log_probabilities.const_data_ptr<double>();
      Scored scored{0.0, {values, values + length}};
      scored.score = std::accumulate(values, values + length, 0.0);
      results.push_back(std::move(scored));
    }
  }
  return results;
}

}  // namespace switchyard
