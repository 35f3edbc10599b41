// The settings by which a checkpoint was trained, kept in it, so that a resumed run can say what it would do otherwise.
#pragma once

#include <string>
#include <vector>

#include "base/config.h"
#include "data/example_source.h"
#include "text/vocabulary.h"
#include "train/run_config.h"

namespace switchyard {

// Every key of the run by section, but those that may change freely (how long to train, when to log, evaluate and save,
// what to keep, how to cut a batch, where files lie); vocabulary and training examples by their content.
Json training_settings(const RunConfig& run, const Vocabulary& vocabulary, const ExampleSource& examples);

// One line a difference, "train.seed: 0 -> 7". Empty if there is none, or if `before` holds nothing.
std::vector<std::string> changed_settings(const Json& before, const Json& now);

}  // namespace switchyard
