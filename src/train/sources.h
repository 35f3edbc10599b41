// What a run file's [data] names: the source of training examples and what evaluates the model on the way.
#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "data/example_source.h"
#include "eval/evaluator.h"
#include "text/vocabulary.h"
#include "train/run_config.h"

namespace switchyard {

// Text is tokenised into `cache_folder` unless data.cache names another. Both throw Error for text that is missing or
// too short, and for lengths that do not fit each other.
std::unique_ptr<ExampleSource> open_training_examples(const RunConfig& run, const Vocabulary& vocabulary,
                                                      const std::filesystem::path& cache_folder);
std::vector<std::unique_ptr<Evaluator>> open_evaluators(const RunConfig& run, const Vocabulary& vocabulary,
                                                        const std::filesystem::path& cache_folder);

}  // namespace switchyard
