#include "generate/blanks.h"

#include <charconv>
#include <map>
#include <optional>

namespace switchyard {
namespace {

constexpr std::string_view kOpen = "<extra_id_";

struct Blank {
  size_t begin, end;  // bytes of "<extra_id_N>" in the text
  int32_t number;
};

std::optional<Blank> find_blank(std::string_view text, size_t from, int32_t num_sentinels) {
  for (size_t begin = text.find(kOpen, from); begin != text.npos; begin = text.find(kOpen, begin + 1)) {
    int32_t number = -1;
    const char* const digits = text.data() + begin + kOpen.size();
    const auto [rest, error] = std::from_chars(digits, text.data() + text.size(), number);
    const bool canonical = error == std::errc() && number >= 0 && (*digits != '0' || rest == digits + 1);
    if (canonical && number < num_sentinels && rest < text.data() + text.size() && *rest == '>')
      return Blank{begin, static_cast<size_t>(rest - text.data()) + 1, number};
  }
  return std::nullopt;
}

std::string_view trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  return begin == text.npos ? std::string_view() : text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

// The text after each sentinel of an output; of a repeated one, the first.
std::map<int32_t, std::string> spans_of(std::span<const int32_t> output, const Vocabulary& vocabulary) {
  std::map<int32_t, std::string> spans;
  for (size_t place = 0; place < output.size();) {
    const int32_t number = vocabulary.sentinel_number(output[place++]);
    if (number < 0) continue;
    const size_t begin = place;
    while (place < output.size() && output[place] != vocabulary.eos_id() &&
           vocabulary.sentinel_number(output[place]) < 0)
      ++place;
    spans.emplace(number, trim(vocabulary.decode(output.subspan(begin, place - begin))));
  }
  return spans;
}

}  // namespace

bool has_blanks(std::string_view prompt, const Vocabulary& vocabulary) {
  return find_blank(prompt, 0, vocabulary.num_sentinels()).has_value();
}

std::string fill_blanks(std::string_view prompt, std::span<const int32_t> output, const Vocabulary& vocabulary) {
  const auto spans = spans_of(output, vocabulary);
  std::string filled;
  size_t from = 0;
  while (const auto blank = find_blank(prompt, from, vocabulary.num_sentinels())) {
    filled += prompt.substr(from, blank->begin - from);
    from = blank->end;
    const auto span = spans.find(blank->number);
    if (span == spans.end()) {
      filled += prompt.substr(blank->begin, blank->end - blank->begin);
    } else if (!span->second.empty()) {
      filled += span->second;
    } else if ((filled.empty() || filled.back() == ' ') && from < prompt.size() && prompt[from] == ' ') {
      ++from;
    }
  }
  return filled.append(prompt.substr(from));
}

}  // namespace switchyard
