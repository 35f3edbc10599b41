// The text of an output while it grows.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "generate/stop_strings.h"
#include "text/vocabulary.h"

namespace switchyard {

class TextStream {
 public:
  // `stop`: strings at which the text is cut, as in a request.
  TextStream(const Vocabulary& vocabulary, const std::vector<std::string>& stop);

  // What the token adds, as far as no later token can change it: the bytes of a character that is not whole yet and the
  // possible beginning of a stop string are held back.
  std::string add(int32_t id);
  // What was held back, at the end of the output.
  std::string finish();

 private:
  std::string told(size_t end);

  Vocabulary vocabulary_;
  std::optional<StopStrings> stops_;
  size_t held_bytes_ = 0;  // bytes that may be the beginning of a stop string
  std::vector<int32_t> ids_;
  std::string text_;  // of ids_, cut
  size_t told_ = 0;   // bytes of it
};

}  // namespace switchyard
