// Text to ids and back for commands that take both: through the model's vocabulary, or with --ids as numbers.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/vocabulary.h"

namespace switchyard {

class Codec {
 public:
  // ids: prompts are ids separated by spaces, and `model` needs no vocabulary. Throws Error as Vocabulary::load() does.
  Codec(const std::filesystem::path& model, bool ids);

  const Vocabulary* vocabulary() const { return vocabulary_ ? &*vocabulary_ : nullptr; }  // null with ids
  // Throws Error, beginning with `place`, for what is no id.
  std::vector<int32_t> encode(std::string_view text, const std::string& place) const;
  // With T5's EOS at the end; ids are taken as they are given.
  std::vector<int32_t> encode_with_eos(std::string_view text, const std::string& place) const;
  bool has_blanks(std::string_view prompt) const;

 private:
  std::optional<Vocabulary> vocabulary_;
};

}  // namespace switchyard
