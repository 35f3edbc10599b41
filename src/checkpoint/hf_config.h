// ModelConfig from and to Hugging Face's config.json, for model types t5, mt5, umt5 and switch_transformers.
//
// HF's keys say what they can; all fields stand once more under "switchyard", which is read for what HF cannot express
// (capacity factors, groups, sparse positions, expert dropout, ...). A key that HF states exactly wins over that block,
// so that a model which HF resized or edited still opens. Tensor names decide which layers are sparse (Convention:
// T5X's positions differ from the ones that HF derives from its counts).
#pragma once

#include <string>
#include <vector>

#include "base/config.h"
#include "model/config.h"

namespace switchyard {

// What config.json says. Of tables (tie_output, tie_encoder_input, tie_decoder_input) it is what HF assumes before it
// has seen the file's; plan_weights() reconciles. Throws Error naming `source`, the key, and what is supported.
ModelConfig config_from_hf(const Json& json, const std::string& source, const std::vector<std::string>& tensor_names);

// dtype: "float32", "bfloat16" or "float16", that of the stored weights.
Json config_to_hf(const ModelConfig& config, const std::string& dtype);

// What of a model Hugging Face's classes cannot compute, one phrase each; empty if transformers computes the same (by
// its own rules of capacity, padding and losses). Such parts stand under "switchyard" in config.json and under names of
// their own among the tensors.
std::vector<std::string> beyond_hf(const ModelConfig& config);

}  // namespace switchyard
