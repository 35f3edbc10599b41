// The plain ATen form of every fused operation, to be read against the paper: differentiable by composition, on any
// device and in any dtype. It is what tests compare with, and what runs for f64, for devices other than CPU and with
// --kernels reference. Arguments are those of the operation of the same name; they are not checked again.
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/cross_entropy.h"
#include "ops/experts.h"
#include "ops/layers.h"
#include "ops/router.h"

namespace switchyard::ops::reference {

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& scale, double epsilon, at::ScalarType out_dtype);
at::Tensor add_residual(const at::Tensor& x, const at::Tensor& delta);
at::Tensor embedding(const at::Tensor& weight, const at::Tensor& ids);
// The channels of x begin with number first_channel of their noise.
at::Tensor dropout(const at::Tensor& x, double rate, const NoiseKey& key, int64_t first_example,
                   int64_t first_channel = 0, const at::Tensor& example = {});
at::Tensor activation(const at::Tensor& x, Activation activation);
at::Tensor feed_forward(const at::Tensor& x, const at::Tensor& wi, const at::Tensor& wi_1, const at::Tensor& wo,
                        const FeedForwardOptions& options);

at::Tensor router_logits(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                         const RouterInputNoise& noise);
at::Tensor dispatch_rows(const at::Tensor& x, const Dispatch& dispatch);
at::Tensor combine_rows(const at::Tensor& rows, const at::Tensor& gate, const Dispatch& dispatch, int64_t tokens);
at::Tensor expert_rows(const at::Tensor& rows, const Dispatch& dispatch, const at::Tensor& wi, const at::Tensor& wi_1,
                       const at::Tensor& wo, const ExpertsOptions& options);
at::Tensor expert_rows_linear(const at::Tensor& rows, const Dispatch& dispatch, const at::Tensor& weight);

CrossEntropy linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels,
                                  double scale, const VocabularyPart& part = {});
at::Tensor label_log_probabilities(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels,
                                   double scale, const VocabularyPart& part = {});
at::Tensor vocabulary_logits(const at::Tensor& hidden, const at::Tensor& weight, double scale);

// Uniform noise [rows, width] f32 on `device`: row r is the first `width` numbers of subsequence first_row + r of
// `key`. Made on the CPU and moved, so that every device sees the same numbers.
at::Tensor uniform_noise(const NoiseKey& key, int64_t first_row, int64_t rows, int64_t width,
                         at::Device device = at::kCPU);

// Of the rows whose numbers [rows] i64 are given.
at::Tensor uniform_noise_of(const NoiseKey& key, const at::Tensor& number, int64_t width, at::Device device);

// What a dropout factor is from uniform noise of the same shape: 0 where noise < rate, else 1 / (1 - rate). f32.
at::Tensor dropout_factors(const at::Tensor& noise, double rate);

}  // namespace switchyard::ops::reference
