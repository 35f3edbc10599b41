// Makes a vocabulary: a SentencePiece unigram model with T5's settings (ids pad 0, eos 1, unk 2, no bos; nmt_nfkc
// normalisation; character coverage 0.9995). Same text, size and seed: same bytes, on any machine.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace switchyard {

struct VocabularyTraining {
  std::vector<std::filesystem::path> text;  // files, folders or "-", as TextReader takes them
  int64_t size = 32000;                     // pieces, with pad, eos and unk; Vocabulary adds the sentinels
  std::filesystem::path out = "spiece.model";
  double character_coverage = 0.9995;  // share of the text's characters that get a piece; 1.0 keeps every character
  // Of more text, a uniform sample of sentences is used: 32 MB take about 40 s and 0.8 GB.
  int64_t max_text_bytes = 32 << 20;
  // Files of n bytes share out that limit by n^exponent, none giving more than it has; 1: every sentence alike. mT5:
  // 0.3 over one file a language.
  double exponent = 1.0;
  bool byte_fallback = false;  // 256 pieces are bytes, so that no text has unknown characters
  int64_t seed = 0;            // of that sample
};

// Reads the text, trains, and puts the model at `out` in one step, with a message at both ends. Throws Error as
// TextReader does, and if the text is too little for the size or the size too small for the text's characters.
void train_vocabulary(const VocabularyTraining& training);

}  // namespace switchyard
