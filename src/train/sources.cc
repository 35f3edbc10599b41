#include "train/sources.h"

#include "data/pretraining.h"
#include "data/token_store.h"
#include "eval/held_out_loss.h"
#include "model/routing_groups.h"

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

std::unique_ptr<ExampleSource> open_training_examples(const RunConfig& run, const Vocabulary& vocabulary,
                                                      const std::filesystem::path& cache_folder) {
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
