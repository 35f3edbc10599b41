// Held-out loss as an evaluator: span corruption of a fixed set of segments with fixed noise.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "data/pretraining.h"
#include "eval/evaluator.h"

namespace switchyard {

// "held_out/de.jsonl.gz": "de".
std::string text_name(const std::filesystem::path& file);

struct HeldOutTexts {
  std::vector<TokenStore> texts;
  std::vector<std::string> names;  // of their files; empty where all are one text
};

// As one text, or each file apart. Throws Error as TokenStore::open() does, and for two files of one name.
HeldOutTexts open_held_out(const std::vector<std::filesystem::path>& paths, bool each_file,
                           const Vocabulary& vocabulary, const TokenStoreOptions& options);

// Gives eval_loss (nats per target token), eval_tokens, eval_accuracy and eval_dropped_fraction, and from the same pass
// eval_loss_NAME of each text of several.
class HeldOutLoss : public Evaluator {
 public:
  // names: of the data's texts, in their order; none where they are looked at as one.
  explicit HeldOutLoss(EvaluationData data, std::vector<std::string> names = {})
      : data_(std::move(data)), names_(std::move(names)) {}
  std::vector<NamedNumber> evaluate(const ModelConfig& config, const ComputeWeights& weights) const override;

 private:
  EvaluationData data_;
  std::vector<std::string> names_;
};

}  // namespace switchyard
