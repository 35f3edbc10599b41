#include "cli/task_model.h"

#include <unistd.h>

#include <algorithm>
#include <iostream>

#include "base/error.h"
#include "checkpoint/checkpoint_store.h"
#include "checkpoint/model_directory.h"
#include "generate/generate.h"
#include "text/vocabulary.h"

namespace switchyard {
namespace {

// Calls `compute(begin, end)` for runs of examples, and shows how far it is.
template <class Compute>
void in_runs(size_t count, int64_t batch_size, const Compute& compute) {
  constexpr int64_t kBatchesARun = 8;
  const size_t run = static_cast<size_t>(batch_size * kBatchesARun);
  const bool show = isatty(STDERR_FILENO) != 0;
  for (size_t begin = 0; begin < count; begin += run) {
    const size_t end = std::min(begin + run, count);
    compute(begin, end);
    if (show) std::cerr << "\r" << end << " of " << count << " examples" << std::flush;
  }
  if (show) std::cerr << '\r' << std::string(40, ' ') << '\r' << std::flush;
}

}  // namespace

struct TaskModel::State {
  Vocabulary vocabulary;
  InferenceModel model;
  TaskModelOptions options;
  int64_t truncated = 0;

  std::vector<int32_t> input_ids(const std::string& text) {
    auto ids = vocabulary.encode(text);
    const size_t longest = static_cast<size_t>(options.encoder_length - 1);
    if (ids.size() > longest) {
      ids.resize(longest);
      ++truncated;
    }
    ids.push_back(vocabulary.eos_id());
    return ids;
  }

  std::vector<std::string> generate_texts(std::span<const TaskExample> examples) {
    std::vector<std::string> texts;
    in_runs(examples.size(), options.batch_size, [&](size_t begin, size_t end) {
      std::vector<Prompt> prompts;
      for (size_t n = begin; n < end; ++n) prompts.push_back({.ids = input_ids(examples[n].inputs)});
      GenerateOptions generation;
      generation.batch_size = options.batch_size;
      generation.search.max_tokens = options.max_tokens;
      generation.search.beams.num_beams = options.beams;
      for (const auto& results : generate(model.config, model.weights, prompts, generation))
        texts.push_back(vocabulary.decode(results.at(0).ids));
    });
    return texts;
  }

  std::vector<std::string> best_candidates(const Task& task, std::span<const TaskExample> examples) {
    SY_CHECK(task.kind == TargetKind::kLabel || task.kind == TargetKind::kChoice,
             "--rank chooses among labels or "
             "choices, and ",
             task.name, " has none");
    std::vector<std::string> texts;
    in_runs(examples.size(), options.batch_size, [&](size_t begin, size_t end) {
      std::vector<std::vector<int32_t>> inputs, targets;
      std::vector<std::pair<size_t, const std::string*>> candidates;
      for (size_t n = begin; n < end; ++n) {
        const auto ids = input_ids(examples[n].inputs);
        for (const auto& text : task.kind == TargetKind::kLabel ? task.labels : examples[n].references) {
          inputs.push_back(ids);
          targets.push_back(vocabulary.encode(text));
          targets.back().push_back(vocabulary.eos_id());
          candidates.emplace_back(n, &text);
        }
      }
      const auto scored = score_targets(model.config, model.weights, inputs, targets, options.batch_size);
      for (size_t at = 0, best = 0; at < candidates.size(); ++at) {
        if (candidates[at].first != candidates[best].first || scored[at].score > scored[best].score) best = at;
        const bool last = at + 1 == candidates.size() || candidates[at + 1].first != candidates[at].first;
        if (last) texts.push_back(*candidates[best].second);
      }
    });
    return texts;
  }
};

TaskModel::TaskModel(const std::filesystem::path& folder, const ComputeOptions& compute,
                     const TaskModelOptions& options) {
  SY_CHECK(options.encoder_length > 1, "an input has at least 2 tokens, got --encoder-length ", options.encoder_length);
  const auto model = resolve_model_folder(folder);
  apply(compute);
  state_ = std::make_unique<State>(
      State{Vocabulary::load(model),
            open_for_inference(model, dtype_of(compute.dtype.empty() ? "fp32" : compute.dtype)), options, 0});
  SY_CHECK(state_->vocabulary.size() <= state_->model.config.vocab_size, model.string(), ": the vocabulary has ",
           state_->vocabulary.size(), " ids, the model's embedding ", state_->model.config.vocab_size);
}

TaskModel::~TaskModel() = default;

std::vector<std::string> TaskModel::predict(const Task& task, std::span<const TaskExample> examples) {
  return state_->options.rank ? state_->best_candidates(task, examples) : state_->generate_texts(examples);
}

int64_t TaskModel::truncated_inputs() const { return state_->truncated; }

}  // namespace switchyard
