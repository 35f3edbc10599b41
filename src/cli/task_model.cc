#include "cli/task_model.h"

#include <unistd.h>

#include <algorithm>
#include <iostream>

#include "base/error.h"
#include "checkpoint/checkpoint_store.h"
#include "checkpoint/model_directory.h"
#include "cli/model_vocabulary.h"
#include "generate/score.h"
#include "generate/session.h"

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
      std::vector<Request> requests;
      for (size_t n = begin; n < end; ++n)
        requests.push_back({.ids = input_ids(examples[n].inputs),
                            .search = {.max_tokens = options.max_tokens, .beams = {.num_beams = options.beams}}});
      const SessionOptions session{.rows = options.batch_size * options.beams, .max_length = options.max_tokens};
      for (const auto& results : generate_all(model.config, model.weights, &vocabulary, requests, session))
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
      for (size_t n = begin; n < end; ++n) {
        const auto& candidates = task.kind == TargetKind::kLabel ? task.labels : examples[n].references;
        std::vector<std::vector<int32_t>> targets;
        for (const auto& text : candidates) {
          targets.push_back(vocabulary.encode(text));
          targets.back().push_back(vocabulary.eos_id());
        }
        const auto scored = score_targets(model.config, model.weights, input_ids(examples[n].inputs), targets);
        const auto best = std::max_element(scored.begin(), scored.end(),
                                           [](const Scored& a, const Scored& b) { return a.score < b.score; });
        texts.push_back(candidates.at(static_cast<size_t>(best - scored.begin())));
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
  auto weights =
      open_for_inference(model, dtype_of(compute.dtype.empty() ? "fp32" : compute.dtype), device_of(compute));
  auto vocabulary = open_vocabulary(model, weights.config);
  state_ = std::make_unique<State>(State{std::move(vocabulary), std::move(weights), options, 0});
}

TaskModel::~TaskModel() = default;

std::vector<std::string> TaskModel::predict(const Task& task, std::span<const TaskExample> examples) {
  return state_->options.rank ? state_->best_candidates(task, examples) : state_->generate_texts(examples);
}

int64_t TaskModel::truncated_inputs() const { return state_->truncated; }

}  // namespace switchyard
