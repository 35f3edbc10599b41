// Floating-point operations of a model, counted as the paper's Table 9 counts them.
#pragma once

#include <cstdint>

#include "model/config.h"

namespace switchyard {

// Forward FLOPs of one sequence, a multiply-add being two: products with weights and attention, the decoder's weights
// (cross-attention included) charged to decoder tokens, one expert a token, the output projection; embedding look-ups
// and the router are left out. Of attention only one of its two products is counted: that is what makes the formula
// give the printed figures. With 512 and 114 tokens this reproduces Table 9 (124B for Base, 425B for Large, 6.3T for
// XXL).
double forward_flops(const ModelConfig& config, int64_t encoder_length, int64_t decoder_length);

// The routers' share, not part of the above: 2 * d_model * num_experts a token and sparse layer.
double router_flops(const ModelConfig& config, int64_t encoder_length, int64_t decoder_length);

}  // namespace switchyard
