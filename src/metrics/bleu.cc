#include "metrics/bleu.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <map>

#include "base/error.h"
#include "metrics/unicode.h"

namespace switchyard {
namespace {

constexpr size_t kOrders = 4;

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (size_t at = text.find(from); at != text.npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
}

bool is_digit(char32_t c) { return c >= '0' && c <= '9'; }
bool is_stop(char32_t c) { return c == '.' || c == ','; }

// Puts spaces round one of two neighbouring characters that fit, as a regular expression does: from left to right,
// without overlaps. "a." -> "a . " with kSecond, ".a" -> " . a" with kFirst.
enum class Spaced { kFirst, kSecond };

template <class First, class Second>
std::u32string space_pairs(std::u32string_view text, const First& first, const Second& second, Spaced spaced) {
  std::u32string result;
  for (size_t at = 0; at < text.size(); ++at) {
    if (at + 1 == text.size() || !first(text[at]) || !second(text[at + 1])) {
      result += text[at];
      continue;
    }
    if (spaced == Spaced::kFirst) result += U' ';
    result += text[at];
    result += U' ';
    result += text[++at];
    if (spaced == Spaced::kSecond) result += U' ';
  }
  return result;
}

template <class Kind>
std::u32string space_around(std::u32string_view text, const Kind& kind) {
  std::u32string result;
  for (const char32_t c : text) {
    if (kind(c)) result += U' ';
    result += c;
    if (kind(c)) result += U' ';
  }
  return result;
}

std::u32string tokenize_13a(std::string line) {
  replace_all(line, "<skipped>", "");
  replace_all(line, "-\n", "");
  replace_all(line, "\n", " ");
  replace_all(line, "&quot;", "\"");
  replace_all(line, "&amp;", "&");
  replace_all(line, "&lt;", "<");
  replace_all(line, "&gt;", ">");
  auto text = decode_utf8(" " + line + " ");
  // Punctuation but for ' - . and , : [\{-\~\[-\` -\&\(-\+\:-\@\/], which has the space in it too.
  text = space_around(text, [](char32_t c) {
    return (c >= '{' && c <= '~') || (c >= '[' && c <= '`') || (c >= ' ' && c <= '&') || (c >= '(' && c <= '+') ||
           (c >= ':' && c <= '@') || c == '/';
  });
  const auto no_digit = [](char32_t c) { return !is_digit(c); };
  text = space_pairs(text, no_digit, is_stop, Spaced::kSecond);
  text = space_pairs(text, is_stop, no_digit, Spaced::kFirst);
  return space_pairs(
      text, is_digit, [](char32_t c) { return c == '-'; }, Spaced::kSecond);
}

std::u32string tokenize_international(std::string_view line) {
  const auto no_number = [](char32_t c) { return !is_number(c); };
  auto text = space_pairs(decode_utf8(line), no_number, is_punctuation, Spaced::kSecond);
  text = space_pairs(text, is_punctuation, no_number, Spaced::kFirst);
  return space_around(text, is_symbol);
}

using NGram = std::vector<std::string>;
using Counts = std::map<NGram, int64_t>;

Counts count_n_grams(const std::vector<std::string>& words) {
  Counts counts;
  for (size_t order = 1; order <= kOrders; ++order)
    for (size_t at = 0; at + order <= words.size(); ++at)
      ++counts[NGram(words.begin() + static_cast<ptrdiff_t>(at), words.begin() + static_cast<ptrdiff_t>(at + order))];
  return counts;
}

// The reference's length that is nearest, the shorter of two that are.
int64_t nearest_length(int64_t length, const std::vector<int64_t>& lengths) {
  return *std::min_element(lengths.begin(), lengths.end(), [length](int64_t a, int64_t b) {
    return std::pair(std::abs(a - length), a) < std::pair(std::abs(b - length), b);
  });
}

struct Statistics {
  int64_t length = 0, reference_length = 0;
  std::array<int64_t, kOrders> correct = {}, total = {};
};

double score(const Statistics& statistics) {
  if (std::all_of(statistics.correct.begin(), statistics.correct.end(), [](int64_t n) { return n == 0; })) return 0;
  double log_sum = 0, halvings = 1;
  for (size_t order = 0; order < kOrders; ++order) {
    if (statistics.total[order] == 0) return 0;  // no prediction is that long
    double correct = static_cast<double>(statistics.correct[order]);
    if (correct == 0) {
      halvings *= 2;
      correct = 1 / halvings;
    }
    log_sum += std::log(100.0 * correct / static_cast<double>(statistics.total[order]));
  }
  const double length = static_cast<double>(statistics.length);
  const double reference_length = static_cast<double>(statistics.reference_length);
  const double brevity = length < reference_length ? std::exp(1 - reference_length / length) : 1.0;
  return brevity * std::exp(log_sum / kOrders);
}

}  // namespace

std::string bleu_tokenize(std::string_view text, BleuTokens tokens) {
  const auto kept = strip(text);
  if (!kept.empty()) text = text.substr(0, static_cast<size_t>(kept.data() - text.data()) + kept.size());
  const auto spaced = tokens == BleuTokens::k13a ? tokenize_13a(std::string(text)) : tokenize_international(text);
  return join_words(split_words(encode_utf8(spaced)));
}

double corpus_bleu(std::span<const std::vector<std::string>> references, std::span<const std::string> predictions,
                   BleuTokens tokens) {
  SY_CHECK(references.size() == predictions.size(), "metrics: references of ", references.size(), " translations but ",
           predictions.size(), " predictions");
  SY_CHECK(!references.empty(), "metrics: nothing to score");
  const auto words_of = [tokens](const std::string& text) { return split_words(bleu_tokenize(text, tokens)); };
  Statistics statistics;
  for (size_t n = 0; n < references.size(); ++n) {
    SY_CHECK(!references[n].empty(), "metrics: translation ", n + 1, " has no reference to compare with");
    Counts allowed;
    std::vector<int64_t> lengths;
    for (const auto& reference : references[n]) {
      const auto words = words_of(reference);
      lengths.push_back(static_cast<int64_t>(words.size()));
      for (const auto& [n_gram, count] : count_n_grams(words)) allowed[n_gram] = std::max(allowed[n_gram], count);
    }
    const auto words = words_of(predictions[n]);
    statistics.length += static_cast<int64_t>(words.size());
    statistics.reference_length += nearest_length(static_cast<int64_t>(words.size()), lengths);
    for (const auto& [n_gram, count] : count_n_grams(words)) {
      statistics.total[n_gram.size() - 1] += count;
      const auto found = allowed.find(n_gram);
      if (found != allowed.end()) statistics.correct[n_gram.size() - 1] += std::min(count, found->second);
    }
  }
  return score(statistics);
}

}  // namespace switchyard
