// Prompts with blanks, "A <extra_id_0> walks into a <extra_id_1>", and their text with the blanks filled in.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "text/vocabulary.h"

namespace switchyard {

// True if the text holds a sentinel "<extra_id_N>" of the vocabulary.
bool has_blanks(std::string_view prompt, const Vocabulary& vocabulary);

// The prompt with each sentinel replaced by what follows the same sentinel in `output` up to the next one or EOS (T5's
// span corruption). A sentinel that the output does not hold stays. White space around a span is dropped, and where a
// span is empty one of the two spaces around it.
std::string fill_blanks(std::string_view prompt, std::span<const int32_t> output, const Vocabulary& vocabulary);

}  // namespace switchyard
