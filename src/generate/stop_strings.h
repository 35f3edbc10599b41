// Texts at which generation ends.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/vocabulary.h"

namespace switchyard {

class StopStrings {
 public:
  // Throws Error if one of them is empty.
  StopStrings(std::vector<std::string> strings, Vocabulary vocabulary);

  bool contained_in(std::span<const int32_t> output) const;  // true if the output's text holds one of them
  std::string_view cut(std::string_view text) const;         // the text before the first of them

 private:
  std::vector<std::string> strings_;
  size_t longest_ = 0;  // bytes
  Vocabulary vocabulary_;
};

}  // namespace switchyard
