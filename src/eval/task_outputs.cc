#include "eval/task_outputs.h"

#include <algorithm>

#include "base/error.h"
#include "generate/score.h"
#include "generate/session.h"

namespace switchyard {
namespace {

struct Answering {
  const ModelConfig& config;
  const ComputeWeights& weights;
  const Vocabulary& vocabulary;
  const TaskOutputOptions& options;

  std::vector<int32_t> input_ids(const std::string& text) const {
    auto ids = vocabulary.encode(text);
    const auto longest = static_cast<size_t>(options.encoder_length - 1);
    if (ids.size() > longest) ids.resize(longest);
    ids.push_back(vocabulary.eos_id());
    return ids;
  }

  void generate(std::span<const TaskExample> examples, std::vector<std::string>& texts) const {
    std::vector<Request> requests;
    for (const auto& example : examples)
      requests.push_back({.ids = input_ids(example.inputs),
                          .search = {.max_tokens = options.max_tokens, .beams = {.num_beams = options.beams}}});
    const SessionOptions session{.rows = options.batch_size * options.beams, .max_length = options.max_tokens};
    for (const auto& results : generate_all(config, weights, &vocabulary, requests, session))
      texts.push_back(vocabulary.decode(results.at(0).ids));
  }

  std::string likeliest(const std::string& input, const std::vector<std::string>& candidates) const {
    std::vector<std::vector<int32_t>> targets;
    for (const auto& text : candidates) {
      targets.push_back(vocabulary.encode(text));
      targets.back().push_back(vocabulary.eos_id());
    }
    const auto scored = score_targets(config, weights, input_ids(input), targets);
    const auto best =
        std::max_element(scored.begin(), scored.end(), [](const auto& a, const auto& b) { return a.score < b.score; });
    return candidates.at(static_cast<size_t>(best - scored.begin()));
  }
};

}  // namespace

std::vector<std::string> task_outputs(const ModelConfig& config, const ComputeWeights& weights,
                                      const Vocabulary& vocabulary, const Task& task,
                                      std::span<const TaskExample> examples, const TaskOutputOptions& options,
                                      const std::function<void(size_t)>& progress) {
  SY_CHECK(options.encoder_length > 1, "an input has at least 2 tokens, got an encoder length of ",
           options.encoder_length);
  SY_CHECK(!options.rank || task.kind == TargetKind::kLabel || task.kind == TargetKind::kChoice,
           "ranking chooses among labels or choices, and ", task.name, " has none");
  constexpr size_t kBatchesARun = 8;
  const size_t run = static_cast<size_t>(options.batch_size) * kBatchesARun;
  const Answering answering{config, weights, vocabulary, options};
  std::vector<std::string> texts;
  for (size_t begin = 0; begin < examples.size(); begin += run) {
    const auto part = examples.subspan(begin, std::min(run, examples.size() - begin));
    if (!options.rank) answering.generate(part, texts);
    for (size_t n = 0; options.rank && n < part.size(); ++n)
      texts.push_back(
          answering.likeliest(part[n].inputs, task.kind == TargetKind::kLabel ? task.labels : part[n].references));
    if (progress) progress(texts.size());
  }
  return texts;
}

}  // namespace switchyard
