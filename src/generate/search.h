// Search for the tokens that follow, over anything that gives next-token logits: a model with its cache, or a stub.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "generate/sampler.h"

namespace switchyard {

// What a search asks of a model: rows of sequences that grow by one token at a time. Row n starts as prompt n.
class NextTokens {
 public:
  virtual ~NextTokens() = default;
  // Appends ids[n] to row n and returns the logits of what follows: [rows, vocab] f32, contiguous, on the CPU. The
  // caller may write to it.
  virtual at::Tensor advance(std::span<const int32_t> ids) = 0;
  // New row n goes on from old row rows[n]; rows that are not named end.
  virtual void select_rows(std::span<const int64_t> rows) = 0;
};

enum class EarlyStopping {
  kHeuristic,  // stop when no running beam at its present length can beat the worst finished one (HF's False, the
               // default)
  kAlways,     // stop as soon as there are num_beams finished sequences (True)
  kNever,      // stop only when a running beam could not do so even at full length ("never")
};

struct BeamOptions {
  int64_t num_beams = 1;
  double length_penalty =
      1.0;  // a finished sequence's score is its log-probability / length^penalty (HF; not GNMT's form)
  EarlyStopping early_stopping = EarlyStopping::kHeuristic;
  int64_t num_results = 1;  // sequences returned a prompt, at most num_beams
};

struct SearchOptions {
  int64_t max_tokens = 128;  // generated tokens, EOS included, prefix not
  TokenRules rules = {};
  SamplingOptions sampling = {};
  BeamOptions beams = {};
  int32_t start_id = 0;  // the decoder's first input: T5's pad
  int32_t eos_id = 1;
  uint64_t first_prompt = 0;  // number of prompt 0: keys the noise
  // If set: true for an output (prefix and tokens so far) that ends there, as at EOS.
  std::function<bool(std::span<const int32_t> ids)> stops = {};
  // If set: called with each token as it is chosen (not with beams). `prompt` counts from 0.
  std::function<void(size_t prompt, int32_t id)> on_token = {};
};

// Throws Error naming the option that is out of range, or beams together with a temperature.
void validate(const SearchOptions& options);

struct Hypothesis {
  std::vector<int32_t> ids;  // prefix and generated tokens, with the EOS if one came; without the start token
  // Greedy and sampling: sum of the model's log-probabilities of the generated tokens, EOS included, before rules,
  // temperature and filters. Beams: HF's sequence score, after rules and length penalty. A prefix counts nothing.
  double score = 0.0;
};

// Best first; one entry except where beams return several.
using Hypotheses = std::vector<Hypothesis>;

// Greedy decoding or sampling. `prefixes`: one a prompt, tokens that its output must begin with (often empty; an EOS in
// it does not end it). Prompts that end leave the batch. Throws Error if the model's logits are not finite.
std::vector<Hypotheses> sample(NextTokens& model, std::span<const std::vector<int32_t>> prefixes,
                               const SearchOptions& options);

// Beam search, in the form of HF's: the same sequences, scores and stopping rule. See beam_search.cc.
std::vector<Hypotheses> beam_search(NextTokens& model, std::span<const std::vector<int32_t>> prefixes,
                                    const SearchOptions& options);

// beam_search() with more than one beam, else sample().
std::vector<Hypotheses> search(NextTokens& model, std::span<const std::vector<int32_t>> prefixes,
                               const SearchOptions& options);

}  // namespace switchyard
