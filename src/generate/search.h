// Search for the tokens that follow, one request at a time: a state that is fed with logits and says which rows go on
// with which tokens. Who computes the logits, and what else it computes beside them, is not its business.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "generate/sampler.h"

namespace switchyard {

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
};

struct SearchOptions {
  int64_t max_tokens = 128;  // generated tokens, EOS included, prefix not
  int64_t num_results = 1;   // outputs: the best of the beams, or independent samples
  TokenRules rules = {};
  SamplingOptions sampling = {};
  BeamOptions beams = {};
  int32_t start_id = 0;  // the decoder's first input: T5's pad
  int32_t eos_id = 1;
  uint64_t number = 0;  // of the request: keys the noise beside the seed
};

// Throws Error naming the option that is out of range, or beams together with a temperature.
void validate(const SearchOptions& options);

// Sequences that a search has at a time, at most: beams or samples.
int64_t most_rows(const SearchOptions& options);

struct Hypothesis {
  std::vector<int32_t> ids;  // prefix and generated tokens, with the EOS if one came; without the start token
  // Greedy and sampling: sum of the model's log-probabilities of the generated tokens, EOS included, before rules,
  // temperature and filters. Beams: HF's sequence score, after rules and length penalty. A prefix counts nothing.
  double score = 0.0;
};

// Beams: best first. Samples: in the order of their numbers.
using Hypotheses = std::vector<Hypothesis>;

// What a search asks and tells on its way. Either may be empty.
struct SearchHooks {
  std::function<bool(std::span<const int32_t> ids)> stops = {};  // true for an output that ends there, as at EOS
  std::function<void(size_t sample, int32_t id)> on_token = {};  // each token as it is chosen; not with beams
};

// A row of the next step: row `row` of the present one, with `id` appended.
struct Continuation {
  size_t row;
  int32_t id;
};

class Search {
 public:
  virtual ~Search() = default;
  // logits [rows][vocab] of what follows the present rows: at first one, which holds the start token and the prefix,
  // then those of the last answer. They may be written to. Returns the next rows; none: the search is done. Throws
  // Error if the logits are not finite.
  virtual std::vector<Continuation> advance(std::span<float> logits) = 0;
  // What is finished; all of it once the search is done.
  virtual Hypotheses results() const = 0;
};

// Beam search if there are several beams, else greedy decoding or sampling. `prefix`: tokens that every output begins
// with (an EOS in it does not end it). Options must be valid.
std::unique_ptr<Search> start_search(const SearchOptions& options, std::span<const int32_t> prefix, SearchHooks hooks);

// In the form of HF's: the same sequences, scores and stopping rule. See beam_search.cc.
std::unique_ptr<Search> start_beam_search(const SearchOptions& options, std::span<const int32_t> prefix,
                                          SearchHooks hooks);

}  // namespace switchyard
