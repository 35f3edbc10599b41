// A vocabulary between its two forms: SentencePiece's model and the lists of a GGUF file.
#pragma once

#include <string>

#include "checkpoint/gguf_model.h"

namespace switchyard {

// One entry for each of the embedding's `num_rows`: pieces, sentinels, and unused ones behind them, as llama.cpp's
// converter names them. "" gives none. Throws Error where the bytes are no SentencePiece model.
GgufVocabulary gguf_vocabulary(const std::string& sentencepiece_model, int64_t num_rows);

// The bytes of a spiece.model with the same pieces; sentinels and unused entries at the end are left out. "" of none.
// Throws Error naming `source` for an id of the unknown piece that is none, or pieces that SentencePiece does not take.
std::string sentencepiece_model_of(const GgufVocabulary& vocabulary, const std::string& source);

}  // namespace switchyard
