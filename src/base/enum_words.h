// Enums whose values are words in configuration files: one table of words for each, from which files are read, written
// and described.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

namespace switchyard {

// The words of an enum in the order of its values, which count from 0. Specialise it beside the enum:
//   template <> inline constexpr auto enum_words<Colour> = std::to_array<const char*>({"red", "green"});
template <class Enum>
inline constexpr std::array<const char*, 0> enum_words = {};

template <class Enum>
inline constexpr bool has_words = std::is_enum_v<Enum>&& std::size(enum_words<Enum>) > 0;

template <class Enum>
constexpr const char* to_word(Enum value) {
  static_assert(has_words<Enum>);
  return enum_words<Enum>[static_cast<size_t>(value)];
}

template <class Enum>
constexpr std::optional<Enum> from_word(std::string_view word) {
  static_assert(has_words<Enum>);
  for (size_t n = 0; n < enum_words<Enum>.size(); ++n)
    if (word == enum_words<Enum>[n]) return static_cast<Enum>(n);
  return std::nullopt;
}

// All words as "a, b or c", for messages and help.
template <class Enum>
std::string list_words() {
  std::string list;
  const auto& words = enum_words<Enum>;
  for (size_t n = 0; n < words.size(); ++n)
    list += (n == 0 ? "" : n + 1 == words.size() ? " or " : ", ") + std::string(words[n]);
  return list;
}

}  // namespace switchyard
