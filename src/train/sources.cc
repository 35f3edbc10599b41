#include "train/sources.h"

#include <algorithm>

#include "base/error.h"
#include "base/messages.h"
#include "data/packing.h"
#include "data/pretraining.h"
#include "data/token_store.h"
#include "eval/held_out_loss.h"
#include "eval/task_evaluator.h"
#include "model/routing_groups.h"
#include "tasks/long_texts.h"
#include "tasks/split_files.h"
#include "tasks/task_source.h"
#include "text/reader.h"

namespace switchyard {
namespace {

SegmentShape segment_shape(const DataConfig& data) {
  return {.encoder_length = data.encoder_length,
          .decoder_length = data.decoder_length,
          .corruption = {data.noise_density, data.mean_noise_span_length}};
}

TokenStoreOptions cached_in(const RunConfig& run, const std::filesystem::path& cache_folder) {
  return {.cache_folder = run.data.cache.empty() ? cache_folder : std::filesystem::path(run.data.cache)};
}

struct TaskPlace {
  std::string task, folder, split;
};

constexpr int64_t kTargetLength = 114;  // where none is said: as in pre-training

TaskExamples read_task(const Task& task, const TaskPlace& place, bool for_training) {
  auto rows =
      read_examples(task, place.folder, place.split, {.bad_rows = BadRows::kSkip, .for_training = for_training});
  if (!rows.bad_rows.empty())
    say(place.task, ": ", rows.bad_rows.size(), " rows skipped; the first is ", rows.bad_rows.front().place, ": ",
        rows.bad_rows.front().problem);
  return rows;
}

std::unique_ptr<Evaluator> open_task_evaluator(const std::string& name, const RunConfig& run,
                                               const Vocabulary& vocabulary) {
  const auto task = find_task(name);
  const auto split =
      run.data.eval_split.empty() ? default_eval_splits(task, run.data.folder).front() : run.data.eval_split;
  auto examples = read_task(task, {name, run.data.folder, split}, /*for_training=*/false).examples;
  const auto wanted = static_cast<size_t>(run.train.eval_task_examples);
  if (wanted > 0 && examples.size() > wanted) examples.resize(wanted);
  if (const auto cut = find_long_texts(examples, &TaskExample::inputs, vocabulary, run.data.encoder_length - 1);
      !cut.empty())
    say(name, ", split ", split, ": ", cut.size(), " of ", examples.size(), " inputs cut to ", run.data.encoder_length,
        " tokens, the first is ", examples[cut.front().example].place);
  const TaskOutputOptions options{.encoder_length = run.data.encoder_length,
                                  .max_tokens = run.data.decoder_length > 0 ? run.data.decoder_length : kTargetLength,
                                  .rank = run.train.eval_rank};
  const auto out_of_reach = options.rank
                                ? std::vector<LongText>()
                                : find_long_texts(examples, &TaskExample::targets, vocabulary, options.max_tokens);
  if (!out_of_reach.empty())
    say(name, ", split ", split, ": ", out_of_reach.size(), " of ", examples.size(),
        " targets are longer than outputs, ", options.max_tokens, " tokens, the first is ",
        examples[out_of_reach.front().example].place);
  return std::make_unique<TaskEvaluator>(task, std::move(examples), vocabulary, options);
}

std::unique_ptr<ExampleSource> open_task(const TaskPlace& place, const RunConfig& run, const Vocabulary& vocabulary,
                                         int64_t batch_size) {
  const auto rows = read_task(find_task(place.task), place, /*for_training=*/true);
  auto source = std::make_unique<TaskSource>(
      rows.examples, vocabulary,
      TaskSourceOptions{.encoder_length = run.data.encoder_length,
                        .decoder_length = run.data.decoder_length > 0 ? run.data.decoder_length : kTargetLength,
                        .seed = static_cast<uint64_t>(run.train.seed),
                        .batch_size = batch_size,
                        .long_inputs = run.data.long_inputs,
                        .long_targets = run.data.long_targets});
  if (const auto& cut = source->cut_inputs(); cut.count > 0)
    say(place.task, ": ", cut.count, " of ", source->examples_per_epoch(), " inputs cut to ", run.data.encoder_length,
        " tokens, the first is ", cut.first, "; targets are never cut");
  if (const auto& skipped = source->skipped_examples(); skipped.count > 0)
    say(place.task, ": ", skipped.count, " examples skipped that are too long, the first is ", skipped.first);
  return source;
}

std::unique_ptr<ExampleSource> open_training_text(const std::vector<std::string>& text, const RunConfig& run,
                                                  const Vocabulary& vocabulary,
                                                  const std::filesystem::path& cache_folder, int64_t batch_size) {
  return std::make_unique<PretrainingData>(
      TokenStore::open({text.begin(), text.end()}, vocabulary, cached_in(run, cache_folder)),
      special_tokens(vocabulary),
      PretrainingOptions{
          .shape = segment_shape(run.data), .seed = static_cast<uint64_t>(run.train.seed), .batch_size = batch_size});
}

// "tasks/mine.toml" is "mine", too.
std::string name_of(const MixtureEntry& entry) {
  return entry.name.empty() ? text_name(entry.task.empty() ? entry.text.front() : entry.task) : entry.name;
}

std::vector<MixtureEntry> with_files_apart(const std::vector<MixtureEntry>& mixture) {
  std::vector<MixtureEntry> entries;
  for (const auto& entry : mixture) {
    if (!entry.each_file) {
      entries.push_back(entry);
      continue;
    }
    for (const auto& file : find_text_files({entry.text.begin(), entry.text.end()})) {
      entries.push_back(entry);
      entries.back().text = {file.string()};
    }
  }
  return entries;
}

std::unique_ptr<ExampleSource> open_mixture(const RunConfig& run, const Vocabulary& vocabulary,
                                            const std::filesystem::path& cache_folder, int64_t batch_size) {
  const auto& data = run.data;
  std::vector<MixturePart> parts;
  std::vector<int64_t> sizes;
  for (const auto& entry : with_files_apart(data.mixture)) {
    const TaskPlace place{entry.task, entry.folder.empty() ? data.folder : entry.folder, entry.split};
    try {
      parts.push_back({.name = name_of(entry),
                       .rate = data.mixture_rule == MixtureRule::kEqual ? 1.0 : entry.rate,
                       .source = entry.task.empty() ? open_training_text(entry.text, run, vocabulary, cache_folder, 1)
                                                    : open_task(place, run, vocabulary, 1)});
    } catch (const Error& error) {
      throw Error(join("mixture part ", name_of(entry), ": ", error.what()));
    }
    sizes.push_back(parts.back().source->examples_per_epoch());
  }
  if (data.mixture_rule == MixtureRule::kProportional) {
    const auto rates = proportional_rates(sizes, data.mixture_maximum, data.mixture_temperature);
    for (size_t n = 0; n < parts.size(); ++n) parts[n].rate = rates[n];
  }
  return std::make_unique<MixtureSource>(std::move(parts), static_cast<uint64_t>(run.train.seed), batch_size);
}

std::unique_ptr<ExampleSource> open_examples(const RunConfig& run, const Vocabulary& vocabulary,
                                             const std::filesystem::path& cache_folder, int64_t batch_size) {
  const auto& data = run.data;
  if (!data.mixture.empty()) return open_mixture(run, vocabulary, cache_folder, batch_size);
  if (!data.task.empty()) return open_task({data.task, data.folder, data.split}, run, vocabulary, batch_size);
  return open_training_text(data.text, run, vocabulary, cache_folder, batch_size);
}

std::unique_ptr<Evaluator> open_held_out_loss(const RunConfig& run, const Vocabulary& vocabulary,
                                              const std::filesystem::path& cache_folder) {
  auto held_out = open_held_out({run.data.eval_text.begin(), run.data.eval_text.end()}, run.data.eval_each_file,
                                vocabulary, cached_in(run, cache_folder));
  const int64_t wanted = run.train.micro_batch_size > 0 ? run.train.micro_batch_size : run.train.batch_size;
  const EvaluationOptions options{
      .shape = segment_shape(run.data),
      .batch_size = evaluation_batch_size(run.model.routing, run.data.encoder_length, wanted),
      .max_examples = run.train.eval_examples};
  return std::make_unique<HeldOutLoss>(EvaluationData(std::move(held_out.texts), special_tokens(vocabulary), options),
                                       std::move(held_out.names));
}

}  // namespace

std::unique_ptr<ExampleSource> open_training_examples(const RunConfig& run, const Vocabulary& vocabulary,
                                                      const std::filesystem::path& cache_folder) {
  if (!run.data.pack) return open_examples(run, vocabulary, cache_folder, run.train.batch_size);
  return std::make_unique<PackedSource>(open_examples(run, vocabulary, cache_folder, 1), run.train.batch_size);
}

std::vector<std::unique_ptr<Evaluator>> open_evaluators(const RunConfig& run, const Vocabulary& vocabulary,
                                                        const std::filesystem::path& cache_folder) {
  std::vector<std::unique_ptr<Evaluator>> evaluators;
  if (!run.data.eval_text.empty()) evaluators.push_back(open_held_out_loss(run, vocabulary, cache_folder));
  for (const auto& name : run.data.eval_tasks) evaluators.push_back(open_task_evaluator(name, run, vocabulary));
  return evaluators;
}

}  // namespace switchyard
