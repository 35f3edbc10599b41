// Characters as Python's str sees them (lower case, words, white space, punctuation), because the metrics' reference
// programs are written in it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace switchyard {

// Each malformed byte becomes U+FFFD.
std::u32string decode_utf8(std::string_view text);
std::string encode_utf8(std::u32string_view text);
void append_utf8(std::string& text, char32_t character);

std::u32string lower_case(std::u32string_view text);  // str.lower(): full mapping, final sigma
std::string lower_case(std::string_view text);

bool is_white_space(char32_t character);  // str.isspace()
bool is_word(char32_t character);         // \w of re: letters, numbers and _
bool is_number(char32_t character);       // category N
bool is_punctuation(char32_t character);  // category P
bool is_symbol(char32_t character);       // category S

// Punctuation of ASCII, string.punctuation: !"#$%&'()*+,-./:;<=>?@[\]^_`{|}~
bool is_ascii_punctuation(char32_t character);

std::vector<std::string> split_words(std::string_view text);                    // str.split()
std::vector<std::string_view> split_at(std::string_view text, char separator);  // str.split(separator)
std::string join_words(const std::vector<std::string>& words, char separator = ' ');
std::string_view strip(std::string_view text);  // str.strip()

}  // namespace switchyard
