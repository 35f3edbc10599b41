#include "cli/model_vocabulary.h"

#include "base/error.h"

namespace switchyard {

Vocabulary open_vocabulary(const std::filesystem::path& folder, const ModelConfig& config) {
  auto vocabulary = Vocabulary::load(folder);
  SY_CHECK(vocabulary.size() <= config.vocab_size, folder.string(), ": the vocabulary has ", vocabulary.size(),
           " ids, the model's embedding ", config.vocab_size, " rows; the tokenizer files are another model's");
  return vocabulary;
}

}  // namespace switchyard
