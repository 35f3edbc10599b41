#include "train/sources.h"

#include "base/messages.h"
#include "data/pretraining.h"
#include "data/token_store.h"
#include "eval/held_out_loss.h"
#include "model/routing_groups.h"
#include "tasks/task_source.h"

namespace switchyard {
namespace {

SegmentShape segment_shape(const DataConfig& data) {
  return {.encoder_length = data.encoder_length,
          .decoder_length = data.decoder_length,
          .corruption = {data.noise_density, data.mean_noise_span_length}};
}

TokenStore open_text(const std::vector<std::string>& text, const RunConfig& run, const Vocabulary& vocabulary,
                     const std::filesystem::path& cache_folder) {
  return TokenStore::open(
      {text.begin(), text.end()}, vocabulary,
      {.cache_folder = run.data.cache.empty() ? cache_folder : std::filesystem::path(run.data.cache)});
}

}  // namespace

namespace {

std::unique_ptr<ExampleSource> open_task(const RunConfig& run, const Vocabulary& vocabulary) {
  constexpr int64_t kTargetLength = 114;  // where none is said: as in pre-training
  const auto task = find_task(run.data.task);
  const auto rows =
      read_examples(task, run.data.folder, run.data.split, {.bad_rows = BadRows::kSkip, .for_training = true});
  if (!rows.bad_rows.empty())
    say(run.data.task, ": ", rows.bad_rows.size(), " rows skipped; the first is ", rows.bad_rows.front().place, ": ",
        rows.bad_rows.front().problem);
  auto source = std::make_unique<TaskSource>(
      rows.examples, vocabulary,
      TaskSourceOptions{.encoder_length = run.data.encoder_length,
                        .decoder_length = run.data.decoder_length > 0 ? run.data.decoder_length : kTargetLength,
                        .seed = static_cast<uint64_t>(run.train.seed),
                        .batch_size = run.train.batch_size});
  if (source->truncated_inputs() > 0)
    say(run.data.task, ": ", source->truncated_inputs(), " of ", source->examples_per_epoch(), " inputs cut to ",
        run.data.encoder_length, " tokens; targets are never cut");
  return source;
}

}  // namespace

std::unique_ptr<ExampleSource> open_training_examples(const RunConfig& run, const Vocabulary& vocabulary,
                                                      const std::filesystem::path& cache_folder) {
  if (!run.data.task.empty()) return open_task(run, vocabulary);
  return std::make_unique<PretrainingData>(open_text(run.data.text, run, vocabulary, cache_folder),
                                           special_tokens(vocabulary),
                                           PretrainingOptions{.shape = segment_shape(run.data),
                                                              .seed = static_cast<uint64_t>(run.train.seed),
                                                              .batch_size = run.train.batch_size});
}

std::vector<std::unique_ptr<Evaluator>> open_evaluators(const RunConfig& run, const Vocabulary& vocabulary,
                                                        const std::filesystem::path& cache_folder) {
  std::vector<std::unique_ptr<Evaluator>> evaluators;
  if (!run.data.eval_text.empty())
    evaluators.push_back(std::make_unique<HeldOutLoss>(EvaluationData(
        open_text(run.data.eval_text, run, vocabulary, cache_folder), special_tokens(vocabulary),
        {.shape = segment_shape(run.data),
         .batch_size =
             evaluation_batch_size(run.model.routing, run.data.encoder_length,
                                   run.train.micro_batch_size > 0 ? run.train.micro_batch_size : run.train.batch_size),
         .max_examples = run.train.eval_examples})));
  return evaluators;
}

}  // namespace switchyard
