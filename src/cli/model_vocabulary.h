// The vocabulary that belongs to a model's weights.
#pragma once

#include <filesystem>

#include "model/config.h"
#include "text/vocabulary.h"

namespace switchyard {

// That of a model directory, with the tokens that its tokenizer files add. Throws Error if there is none, or if the
// model's embedding has fewer rows than it has ids.
Vocabulary open_vocabulary(const std::filesystem::path& folder, const ModelConfig& config);

}  // namespace switchyard
