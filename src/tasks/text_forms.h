// T5's small changes of text, character for character.
#pragma once

#include <string>
#include <string_view>

namespace switchyard {

// Runs of ASCII white space become one space.
std::string collapse_spaces(std::string_view text);

// A space on both sides of each character of ASCII punctuation, then collapse_spaces.
std::string pad_punctuation(std::string_view text);

// A space on both sides of each character of scripts that are written without (Chinese, Japanese, Thai, ...), then
// collapse_spaces.
std::string pad_nonspaced_languages(std::string_view text);

std::string replace_all(std::string text, std::string_view from, std::string_view to);

// A similarity from 0 to 5, rounded to the nearest 0.2 in f32, ties to even, with one decimal: 1.66 -> "1.6".
std::string similarity_text(double score);

// As Python's float(); `otherwise` for text that is no number.
double parse_number(std::string_view text, double otherwise);

}  // namespace switchyard
