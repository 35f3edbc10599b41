// Values, gradients and their comparison: against finite differences in f64, and of one implementation against another.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>
#include <vector>

#include "base/random.h"
#include "testing/tensors.h"

namespace switchyard::test {

using Tensors = std::vector<at::Tensor>;
using Function = std::function<at::Tensor(const Tensors&)>;

struct Evaluation {
  at::Tensor value;   // f64
  Tensors gradients;  // of sum(value * cotangent), f64; a missing one is zeros
};

// f of leaf copies of `inputs`, and the gradients for one fixed random cotangent.
inline Evaluation evaluate(const Function& f, const Tensors& inputs) {
  Tensors leaves;
  for (const auto& input : inputs) leaves.push_back(input.detach().clone().requires_grad_(true));
  const auto value = f(leaves);
  const auto cotangent = random_tensor(value.sizes(), 4711, value.scalar_type());
  auto gradients = torch::autograd::grad({value}, leaves, {cotangent}, /*retain_graph=*/{}, /*create_graph=*/false,
                                         /*allow_unused=*/true);
  for (size_t index = 0; index < leaves.size(); ++index) {
    auto& gradient = gradients[index];
    if (gradient.defined()) {
      EXPECT_EQ(gradient.scalar_type(), leaves[index].scalar_type()) << "gradient of input " << index;
      EXPECT_EQ(gradient.sizes(), leaves[index].sizes()) << "gradient of input " << index;
    }
    gradient = gradient.defined() ? gradient.to(at::kDouble) : at::zeros_like(leaves[index], at::kDouble);
  }
  return {value.detach().to(at::kDouble), gradients};
}

// Every gradient of f at f64 `inputs` against central differences, at up to `probes` elements of each input.
inline void expect_gradients_match_differences(const Function& f, const Tensors& inputs, int64_t probes = 12,
                                               double tolerance = 2e-7) {
  const auto evaluation = evaluate(f, inputs);
  const auto cotangent = random_tensor(evaluation.value.sizes(), 4711);
  const auto loss = [&](const Tensors& at_inputs) { return (f(at_inputs) * cotangent).sum().item<double>(); };
  for (size_t input = 0; input < inputs.size(); ++input) {
    NoiseStream pick({.seed = input, .purpose = NoisePurpose::kShuffle});
    const int64_t numel = inputs[input].numel();
    for (int64_t probe = 0; probe < std::min(probes, numel); ++probe) {
      const int64_t index = numel <= probes ? probe : static_cast<int64_t>(pick.below(static_cast<uint64_t>(numel)));
      constexpr double kStep = 1e-5;
      Tensors moved = inputs;
      double side[2];
      for (const int sign : {0, 1}) {
        moved[input] = inputs[input].contiguous().clone();
        moved[input].view({-1})[index] += sign == 1 ? kStep : -kStep;
        side[sign] = loss(moved);
      }
      const double difference = (side[1] - side[0]) / (2 * kStep);
      const double gradient = evaluation.gradients[input].reshape({-1})[index].item<double>();
      EXPECT_NEAR(gradient, difference, tolerance * std::max(1.0, std::abs(difference)))
          << "input " << input << " element " << index;
    }
  }
}

// Value and gradients of `actual` at `inputs` against those of `wanted` at the same numbers in f64.
inline void expect_same_as_f64(const Function& actual, const Function& wanted, const Tensors& inputs,
                               double tolerance) {
  const auto left = evaluate(actual, inputs);
  Tensors exact;
  for (const auto& input : inputs) exact.push_back(input.to(at::kDouble));
  const auto right = evaluate(wanted, exact);
  EXPECT_EQ(left.value.sizes(), right.value.sizes());
  EXPECT_LE(relative_error(left.value, right.value), tolerance) << "value";
  for (size_t input = 0; input < inputs.size(); ++input)
    EXPECT_LE(relative_error(left.gradients[input], right.gradients[input]), tolerance)
        << "gradient of input " << input;
}

}  // namespace switchyard::test
