// Blanks cut into held-out sentences, and what trained models put into them: the part of a comparison that people read.
#pragma once

#include <string>
#include <vector>

#include "base/config.h"
#include "generate/request.h"
#include "model/compute_weights.h"
#include "train/comparison.h"

namespace switchyard {

// Sentences with blanks, and what they ask of a model.
struct BlankSentences {
  Json samples = Json::array();  // as sample_blanks() gives them
  std::vector<Request> requests;
};
BlankSentences cut_blanks(const std::vector<std::string>& texts, const Vocabulary& vocabulary, int64_t count);
void fill_in(BlankSentences& sentences, const std::string& run, const ModelConfig& config,
             const ComputeWeights& weights, const Vocabulary& vocabulary);

// `count` sentences of the first run's held-out text, two blanks each, chosen by a fixed seed. Each entry: {"text" (the
// sentence), "prompt" (with <extra_id_N>), "filled": {run name: the prompt filled in by that run's weights, greedily}}.
Json sample_blanks(const std::vector<ComparedRun>& runs, int64_t count);

void print_samples(const Json& samples);

}  // namespace switchyard
