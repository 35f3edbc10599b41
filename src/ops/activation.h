// The function between the two products of a feed-forward network.
#pragma once

#include "base/enum_words.h"

namespace switchyard {

enum class Activation { kRelu, kGelu, kGeluNew, kSilu };  // kGelu by erf, kGeluNew by tanh: HF's names
template <>
inline constexpr auto enum_words<Activation> = std::to_array<const char*>({"relu", "gelu", "gelu_new", "silu"});

}  // namespace switchyard
