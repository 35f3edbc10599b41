// Questions of what a pronoun stands for (WSC, WNLI, DPR) in T5's simple form: the pronoun is starred, the target is
// what it stands for.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace switchyard {

// A row of SuperGLUE's WSC.
struct WscRow {
  std::string text, span1_text, span2_text;  // span1: the referent; span2: the pronoun
  int64_t span1_index = 0, span2_index = 0;  // words, counted by single spaces
};

// The referent as it stands in the text, as the "wsc.fixed" version of the data has it: its first letter's case, no
// full stop behind it, spaces for line ends.
std::string fixed_referent(const WscRow& row);

// "Mitchell asked Tom if *he* could lend some money." Throws Error if the pronoun is not the word that the row says.
std::string star_pronoun(const WscRow& row);

// DPR: the first " pronoun" that a space, a full stop or a comma follows is starred.
std::string star_first(std::string_view sentence, std::string_view pronoun);

// WNLI's premise with the pronoun starred, and what the hypothesis puts in its place.
struct WnliReferent {
  std::string marked, referent;
};
// The referent is "" where the hypothesis repeats nothing of the premise around its pronoun, as in T5. Throws Error if
// the premise has no pronoun.
WnliReferent find_referent(const std::string& premise, const std::string& hypothesis);

// Whether an output names the referent: the words of one, without determiners and capitals, are among those of the
// other, and both or neither have an apostrophe. 1 or 0; -1 for an output without words.
int64_t names_referent(std::string_view prediction, std::string_view referent);

}  // namespace switchyard
