// Scores over groups of examples: answers of a question, sentences that differ in a pronoun.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace switchyard {

// Share of groups, in percent, in which every prediction equals its target (MultiRC's exact match).
double group_exact_match(std::span<const std::string> groups, std::span<const int64_t> targets,
                         std::span<const int64_t> predictions);

// Share of groups, in percent, whose predictions are all the same, right or wrong (gender parity of SuperGLUE's AX-g,
// where the two sentences of a group differ in the gender of a pronoun). Groups of one example are left out.
double group_parity(std::span<const std::string> groups, std::span<const int64_t> predictions);

}  // namespace switchyard
