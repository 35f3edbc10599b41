#include "tasks/winograd.h"

#include <algorithm>
#include <array>
#include <regex>
#include <set>
#include <vector>

#include "base/error.h"
#include "metrics/unicode.h"
#include "tasks/text_forms.h"

namespace switchyard {
namespace {

using Words = std::vector<std::string>;

Words words_of(std::string_view text) {
  Words words;
  for (const auto word : split_at(text, ' ')) words.emplace_back(word);
  return words;
}

bool is_end_mark(char c) { return c == '.' || c == ',' || c == '?' || c == '!'; }

// The two texts in which span2_index is not the pronoun's; T5 writes them out too.
const char* known_exception(std::string_view text) {
  if (text ==
      "The boy continued to whip the pony , and eventually the pony threw him over. John laughed out quite loud. "
      "\"Good for him,\" he said. ")
    return "The boy continued to whip the pony , and eventually the pony threw him over. John laughed out quite loud. "
           "\"Good for X ,\" he said.";
  if (text ==
      "When they had eventually calmed down a bit , and had gotten home, Mr. Farley put the magic pebble in an iron "
      "safe . Some day they might want to use it , but really for now, what more could they wish for?")
    return "When they had eventually calmed down a bit , and had gotten home, Mr. Farley put the magic pebble in an "
           "iron safe . Some day they might want to use X , but really for now, what more could they wish for?";
  return nullptr;
}

// Lower case words without a mark at their end.
Words clean_words(std::string_view sentence) {
  Words words;
  for (auto& word : words_of(lower_case(strip(sentence)))) {
    if (!word.empty() && is_end_mark(word.back())) word.pop_back();
    if (!word.empty()) words.push_back(std::move(word));
  }
  return words;
}

bool is_pronoun(std::string_view word) {
  constexpr std::array<std::string_view, 9> kPronouns = {"he",  "she",   "they", "it", "her",
                                                         "his", "their", "them", "him"};
  return std::find(kPronouns.begin(), kPronouns.end(), word) != kPronouns.end();
}

// How many of the first words, joined by spaces, occur in the text.
size_t longest_prefix_in(const std::string& text, const Words& words) {
  std::string joined;
  for (size_t count = 0; count < words.size(); ++count) {
    joined += (count > 0 ? " " : "") + words[count];
    if (text.find(joined) == text.npos) return count;
  }
  return words.size();
}

// Throws Error where the words make no expression: a bracket that is not closed. Bounded, as std::regex recurses.
std::smatch search(const std::string& text, const std::string& pattern, std::regex::flag_type flags = {}) {
  constexpr size_t kMaxBytes = 4096;
  SY_CHECK(text.size() <= kMaxBytes && pattern.size() <= kMaxBytes, "more than ", kMaxBytes, " bytes of text");
  try {
    std::smatch match;
    std::regex_search(text, match, std::regex(pattern, std::regex::ECMAScript | flags));
    return match;
  } catch (const std::regex_error&) {
    throw Error("its words cannot be compared: \"" + pattern + "\"");
  }
}

// The words between `before` and `after` in the hypothesis, as many as fit; `before` and `after` are regular
// expressions, as they are in T5, so that a full stop inside a word fits any character.
std::string words_between(const Words& before, const Words& after, const std::string& hypothesis) {
  const auto pattern = [](Words first, const char* middle, const Words& last) {
    first.emplace_back(middle);
    first.insert(first.end(), last.begin(), last.end());
    return join_words(first);
  };
  for (const auto& text : {pattern(before, "(.+)", after), pattern({}, "^(.+)", after), pattern(before, "(.+)$", {})}) {
    const auto match = search(hypothesis, text);
    if (!match.empty()) return match[1];
  }
  return "";
}

// From the last kind of article on: the candidate may begin with the hypothesis' own beginning.
std::string from_last_article(const std::string& candidate) {
  const auto words = words_of(candidate);
  size_t begin = 0;
  for (const char* article : {"a", "an", "the"}) {
    const auto found = std::find(words.begin(), words.end(), article);
    if (found != words.end()) begin = std::max(begin, static_cast<size_t>(found - words.begin()));
  }
  return join_words(Words(words.begin() + static_cast<ptrdiff_t>(begin), words.end()));
}

// The candidate as the hypothesis spells it, where marks may follow its words; neither a mark nor a possessive at its
// end.
std::string as_spelled(const std::string& candidate, const std::string& hypothesis) {
  std::string pattern;
  for (const auto& word : words_of(candidate)) {
    pattern += pattern.empty() ? "" : " ";
    for (const char c : word) {
      if (is_ascii_punctuation(static_cast<unsigned char>(c)) && c != '_') pattern += '\\';
      pattern += c;
    }
    pattern += "[.,?!]?";
  }
  const auto match = search(hypothesis, pattern, std::regex::icase);
  SY_CHECK(!match.empty(), "the hypothesis does not have \"", candidate, "\"");
  std::string spelled = match[0];
  if (!spelled.empty() && is_end_mark(spelled.back())) spelled.pop_back();
  if (spelled.ends_with("'")) return spelled.substr(0, spelled.size() - 1);
  return spelled.ends_with("'s") ? spelled.substr(0, spelled.size() - 2) : spelled;
}

std::string star_word(std::string_view sentence, size_t index) {
  auto words = words_of(sentence);
  SY_CHECK(index < words.size() && !words[index].empty(), "the premise has spaces in a row before its pronoun");
  auto& word = words[index];
  if (is_end_mark(word.back()))
    word = "*" + word.substr(0, word.size() - 1) + "* " + word.back();
  else
    word = "*" + word + "*";
  return join_words(words);
}

std::string without_determiners(std::string_view text) {
  static const std::set<std::string, std::less<>> kDeterminers = {
      "a",    "an",   "few", "her",   "his",   "each", "every", "many",  "much",  "my",  "our",
      "some", "that", "the", "their", "these", "this", "those", "which", "whose", "your"};
  Words kept;
  for (auto& word : words_of(lower_case(strip(text))))
    if (!kDeterminers.contains(word)) kept.push_back(std::move(word));
  return join_words(kept);
}

}  // namespace

std::string fixed_referent(const WscRow& row) {
  std::string referent = row.span1_text;
  if (referent.empty() || row.text.find(referent) != row.text.npos) return referent;
  const auto words = split_words(row.text);
  SY_CHECK(row.span1_index >= 0 && row.span1_index < static_cast<int64_t>(words.size()), "span1_index is ",
           row.span1_index, ", and the text has ", words.size(), " words");
  const char first = words[static_cast<size_t>(row.span1_index)][0];
  const bool lower = first >= 'a' && first <= 'z';
  auto& letter = referent[0];
  if (lower && letter >= 'A' && letter <= 'Z') letter = static_cast<char>(letter + 32);
  if (!lower && letter >= 'a' && letter <= 'z') letter = static_cast<char>(letter - 32);
  while (referent.ends_with('.')) referent.pop_back();
  return replace_all(referent, "\n", " ");
}

std::string star_pronoun(const WscRow& row) {
  std::string blanked;
  if (const char* exception = known_exception(row.text)) {
    blanked = exception;
  } else {
    auto words = words_of(row.text);
    const int64_t count = static_cast<int64_t>(words.size());
    SY_CHECK(row.span2_index > 0 && row.span2_index < count, "span2_index is ", row.span2_index,
             ", expected the number of a word behind the first of ", count);
    auto& word = words[static_cast<size_t>(row.span2_index)];
    SY_CHECK(word == row.span2_text, "word ", row.span2_index, " is \"", word, "\", and span2_text \"", row.span2_text,
             "\"");
    word = "X";
    blanked = join_words(words);
  }
  return replace_all(blanked, " X ", " *" + row.span2_text + "* ");
}

std::string star_first(std::string_view sentence, std::string_view pronoun) {
  const std::string wanted = " " + std::string(pronoun);
  for (size_t at = sentence.find(wanted); at != sentence.npos; at = sentence.find(wanted, at + 1)) {
    const size_t behind = at + wanted.size();
    if (behind == sentence.size() || (sentence[behind] != ' ' && sentence[behind] != '.' && sentence[behind] != ','))
      continue;
    return join(sentence.substr(0, at), " *", pronoun, "*", sentence.substr(behind));
  }
  throw Error(join("the sentence has no \"", pronoun, "\""));
}

WnliReferent find_referent(const std::string& premise, const std::string& hypothesis) {
  const auto premise_words = clean_words(premise);
  const auto hypothesis_words = clean_words(hypothesis);
  const auto hypothesis_text = join_words(hypothesis_words);
  const auto reversed_text = join_words(Words(hypothesis_words.rbegin(), hypothesis_words.rend()));
  std::string candidate;
  size_t best_score = 0, best_index = premise_words.size();
  for (size_t index = 0; index < premise_words.size(); ++index) {
    if (!is_pronoun(premise_words[index])) continue;
    const auto at = premise_words.begin() + static_cast<ptrdiff_t>(index);
    const Words before(premise_words.begin(), at), after(at + 1, premise_words.end());
    const size_t matched_before = longest_prefix_in(reversed_text, Words(before.rbegin(), before.rend()));
    const size_t matched_after = longest_prefix_in(hypothesis_text, after);
    const size_t score = matched_before + matched_after;
    if (best_index < premise_words.size() && score <= best_score) continue;
    best_score = score;
    best_index = index;
    // T5's slice pre[-0 or len(pre):] is empty where nothing matched.
    candidate = score == 0 ? ""
                           : words_between(Words(before.end() - static_cast<ptrdiff_t>(matched_before), before.end()),
                                           Words(after.begin(), after.begin() + static_cast<ptrdiff_t>(matched_after)),
                                           hypothesis_text);
  }
  SY_CHECK(best_index < premise_words.size(), "the premise has no pronoun");
  return {star_word(premise, best_index), as_spelled(from_last_article(candidate), hypothesis)};
}

int64_t names_referent(std::string_view prediction, std::string_view referent) {
  const auto predicted = without_determiners(prediction), wanted = without_determiners(referent);
  if (predicted.empty()) return -1;
  // "Bob" does not name the referent "Bob's hat".
  if ((predicted.find('\'') != predicted.npos) != (wanted.find('\'') != wanted.npos)) return 0;
  const auto set_of = [](const std::string& text) {
    const auto words = words_of(text);
    return std::set<std::string>(words.begin(), words.end());
  };
  const auto predicted_words = set_of(predicted), wanted_words = set_of(wanted);
  return std::includes(wanted_words.begin(), wanted_words.end(), predicted_words.begin(), predicted_words.end()) ||
                 std::includes(predicted_words.begin(), predicted_words.end(), wanted_words.begin(), wanted_words.end())
             ? 1
             : 0;
}

}  // namespace switchyard
