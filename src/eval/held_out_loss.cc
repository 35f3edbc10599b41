#include "eval/held_out_loss.h"

#include <algorithm>

#include "base/error.h"
#include "eval/text_loss.h"
#include "text/reader.h"

namespace switchyard {

std::string text_name(const std::filesystem::path& file) {
  const std::string name = file.filename().string();
  return name.substr(0, name.find('.', 1));
}

HeldOutTexts open_held_out(const std::vector<std::filesystem::path>& paths, bool each_file,
                           const Vocabulary& vocabulary, const TokenStoreOptions& options) {
  HeldOutTexts held_out;
  if (!each_file) {
    held_out.texts.push_back(TokenStore::open(paths, vocabulary, options));
    return held_out;
  }
  auto& names = held_out.names;
  for (const auto& file : find_text_files(paths)) {
    names.push_back(text_name(file));
    SY_CHECK(std::count(names.begin(), names.end(), names.back()) == 1, "two held-out files are named ", names.back(),
             "; where each is scored apart, it needs a name of its own");
    held_out.texts.push_back(TokenStore::open({file}, vocabulary, options));
  }
  return held_out;
}

std::vector<NamedNumber> HeldOutLoss::evaluate(const ModelConfig& config, const ComputeWeights& weights) const {
  const auto result =
      text_loss(config, weights, data_.num_batches(), [&](int64_t index) { return data_.batch(index); });
  std::vector<NamedNumber> numbers = {{"eval_loss", result.loss},
                                      {"eval_tokens", static_cast<double>(result.tokens)},
                                      {"eval_accuracy", result.accuracy},
                                      {"eval_dropped_fraction", result.dropped_fraction}};
  for (size_t text = 0; text < names_.size(); ++text) {
    // A single text's batches have no parts.
    const double loss =
        names_.size() == 1 ? result.loss : result.parts[text].loss / static_cast<double>(result.parts[text].labels);
    numbers.push_back({"eval_loss_" + names_[text], loss});
  }
  return numbers;
}

}  // namespace switchyard
