#include "metrics/porter_stemmer.h"

#include <algorithm>
#include <array>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace switchyard {
namespace {

using Word = std::string_view;

bool is_vowel_letter(char c) { return c == 'a' || c == 'e' || c == 'i' || c == 'o' || c == 'u'; }

// A y is a consonant at a word's beginning and behind a vowel.
std::vector<bool> consonants(Word word) {
  std::vector<bool> flags(word.size());
  for (size_t n = 0; n < word.size(); ++n)
    flags[n] = word[n] == 'y' ? n == 0 || !flags[n - 1] : !is_vowel_letter(word[n]);
  return flags;
}

// m of the paper: how often a vowel is followed by a consonant.
int measure(Word stem) {
  const auto flags = consonants(stem);
  int count = 0;
  for (size_t n = 1; n < flags.size(); ++n) count += !flags[n - 1] && flags[n] ? 1 : 0;
  return count;
}

bool contains_vowel(Word stem) {
  const auto flags = consonants(stem);
  return std::find(flags.begin(), flags.end(), false) != flags.end();
}

bool ends_double_consonant(Word word) {
  return word.size() >= 2 && word.back() == word[word.size() - 2] && consonants(word).back();
}

// Ends consonant, vowel, consonant, the last not w, x or y; NLTK also takes a word of vowel, consonant.
bool ends_cvc(Word word) {
  const auto flags = consonants(word);
  const size_t size = word.size();
  if (size == 2) return !flags[0] && flags[1];
  return size >= 3 && flags[size - 3] && !flags[size - 2] && flags[size - 1] && word.back() != 'w' &&
         word.back() != 'x' && word.back() != 'y';
}

Word without(Word word, size_t count) { return word.substr(0, word.size() - count); }

struct Rule {
  Word suffix, replacement;
};

// The first rule whose suffix fits decides: replaced if the stem's measure is above `least`, else left alone.
std::string apply_first(std::string word, std::span<const Rule> rules, int least) {
  for (const auto& [suffix, replacement] : rules) {
    if (!word.ends_with(suffix)) continue;
    const Word stem = without(word, suffix.size());
    return measure(stem) > least ? std::string(stem) + std::string(replacement) : word;
  }
  return word;
}

std::string step1a(std::string word) {
  if (word.ends_with("ies")) return std::string(without(word, word.size() == 4 ? 1 : 2));
  if (word.ends_with("sses")) return std::string(without(word, 2));
  if (word.ends_with("s") && !word.ends_with("ss")) word.pop_back();
  return word;
}

std::string step1b(std::string word) {
  if (word.ends_with("ied")) return std::string(without(word, word.size() == 4 ? 1 : 2));
  if (word.ends_with("eed")) {
    if (measure(without(word, 3)) > 0) word.pop_back();
    return word;
  }
  Word stem;
  if (word.ends_with("ed") && contains_vowel(without(word, 2)))
    stem = without(word, 2);
  else if (word.ends_with("ing") && contains_vowel(without(word, 3)))
    stem = without(word, 3);
  else
    return word;
  if (stem.ends_with("at") || stem.ends_with("bl") || stem.ends_with("iz")) return std::string(stem) + "e";
  if (ends_double_consonant(stem)) {
    const char last = stem.back();
    return std::string(last == 'l' || last == 's' || last == 'z' ? stem : without(stem, 1));
  }
  return std::string(stem) + (measure(stem) == 1 && ends_cvc(stem) ? "e" : "");
}

std::string step1c(std::string word) {
  if (word.ends_with('y') && word.size() > 2 && consonants(without(word, 1)).back()) word.back() = 'i';
  return word;
}

std::string step2(std::string word) {
  static constexpr std::array<Rule, 21> kRules = {{
      {"ational", "ate"}, {"tional", "tion"}, {"enci", "ence"}, {"anci", "ance"}, {"izer", "ize"},
      {"bli", "ble"},     {"alli", "al"},     {"entli", "ent"}, {"eli", "e"},     {"ousli", "ous"},
      {"ization", "ize"}, {"ation", "ate"},   {"ator", "ate"},  {"alism", "al"},  {"iveness", "ive"},
      {"fulness", "ful"}, {"ousness", "ous"}, {"aliti", "al"},  {"iviti", "ive"}, {"biliti", "ble"},
      {"fulli", "ful"},
  }};
  // "alli" comes first, and the step is repeated behind it: "generically" loses both of its suffixes.
  if (word.ends_with("alli") && measure(without(word, 4)) > 0) return step2(std::string(without(word, 2)));
  // The l of "logi" counts to the stem, so that short stems (geo-, theo-) lose it too.
  if (word.ends_with("logi")) return measure(without(word, 3)) > 0 ? std::string(without(word, 1)) : word;
  return apply_first(std::move(word), kRules, 0);
}

std::string step3(std::string word) {
  static constexpr std::array<Rule, 7> kRules = {
      {{"icate", "ic"}, {"ative", ""}, {"alize", "al"}, {"iciti", "ic"}, {"ical", "ic"}, {"ful", ""}, {"ness", ""}}};
  return apply_first(std::move(word), kRules, 0);
}

std::string step4(std::string word) {
  static constexpr std::array<Word, 19> kSuffixes = {"al",  "ance",  "ence", "er",  "ic",  "able", "ible",
                                                     "ant", "ement", "ment", "ent", "ion", "ou",   "ism",
                                                     "ate", "iti",   "ous",  "ive", "ize"};
  for (const Word suffix : kSuffixes) {
    if (!word.ends_with(suffix)) continue;
    const Word stem = without(word, suffix.size());
    const bool fits = suffix != "ion" || stem.ends_with('s') || stem.ends_with('t');
    return measure(stem) > 1 && fits ? std::string(stem) : word;
  }
  return word;
}

std::string step5(std::string word) {
  if (word.ends_with('e')) {
    const Word stem = without(word, 1);
    const int count = measure(stem);
    if (count > 1 || (count == 1 && !ends_cvc(stem))) word.pop_back();
  }
  if (word.ends_with("ll") && measure(without(word, 1)) > 1) word.pop_back();
  return word;
}

}  // namespace

std::string porter_stem(std::string word) {
  static constexpr std::array<std::pair<Word, Word>, 16> kIrregular = {{{"sky", "sky"},
                                                                        {"skies", "sky"},
                                                                        {"dying", "die"},
                                                                        {"lying", "lie"},
                                                                        {"tying", "tie"},
                                                                        {"news", "news"},
                                                                        {"innings", "inning"},
                                                                        {"inning", "inning"},
                                                                        {"outings", "outing"},
                                                                        {"outing", "outing"},
                                                                        {"cannings", "canning"},
                                                                        {"canning", "canning"},
                                                                        {"howe", "howe"},
                                                                        {"proceed", "proceed"},
                                                                        {"exceed", "exceed"},
                                                                        {"succeed", "succeed"}}};
  for (const auto& [form, stem] : kIrregular)
    if (word == form) return std::string(stem);
  if (word.size() <= 2) return word;
  return step5(step4(step3(step2(step1c(step1b(step1a(std::move(word))))))));
}

}  // namespace switchyard
