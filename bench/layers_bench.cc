// The rest of a layer at T5-base's width on 1,024 tokens: products, feed-forward networks, experts, norm, routing; and
// the loss on the 228 target tokens of two sequences.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/rms_norm.h>

#include "bench/operation.h"
#include "ops/cross_entropy.h"
#include "ops/experts.h"
#include "ops/layers.h"
#include "ops/router.h"

namespace switchyard::bench {
namespace {

constexpr int64_t kTokens = 1024, kModel = 768, kHidden = 3072, kExperts = 8, kTargets = 228, kVocab = 32128;

at::Tensor random(at::IntArrayRef sizes, at::ScalarType dtype, double scale = 1.0) {
  return at::randn(sizes).mul_(scale).to(dtype).requires_grad_();
}

Operation linear(at::ScalarType dtype) {
  const auto x = random({kTokens, kModel}, dtype), weight = random({kModel, kModel}, dtype, 0.03);
  const Form kernel = [=] { return ops::linear(x, weight); };
  return {.kernel = kernel,
          .plain = in_plain_form(kernel),
          .aten = [=] { return at::linear(x, weight); },
          .leaves = {x, weight}};
}

Operation feed_forward(at::ScalarType dtype) {
  const auto x = random({2, kTokens / 2, kModel}, dtype);
  const auto wi = random({kHidden, kModel}, dtype, 0.03), wo = random({kModel, kHidden}, dtype, 0.03);
  const Form kernel = [=] { return ops::feed_forward(x, wi, {}, wo, {}); };
  return {.kernel = kernel,
          .plain = in_plain_form(kernel),
          .aten = [=] { return at::linear(at::relu(at::linear(x, wi)), wo); },
          .leaves = {x, wi, wo}};
}

// Each expert has an eighth of the rows; ATen's form is a loop over experts, as Hugging Face's is.
Operation experts(at::ScalarType dtype) {
  constexpr int64_t kRows = kTokens / kExperts;
  const auto x = random({kTokens, kModel}, dtype);
  const auto wi = random({kExperts, kHidden, kModel}, dtype, 0.03),
             wo = random({kExperts, kModel, kHidden}, dtype, 0.03);
  const auto gate = at::ones({kTokens});
  const auto dispatch = ops::make_dispatch(at::arange(kTokens), std::vector<int64_t>(kExperts, kRows));
  const Form kernel = [=] { return ops::experts_feed_forward(x, gate, dispatch, wi, {}, wo, {}); };
  return {
      .kernel = kernel,
      .plain = in_plain_form(kernel),
      .aten =
          [=] {
            std::vector<at::Tensor> parts;
            for (int64_t expert = 0; expert < kExperts; ++expert)
              parts.push_back(at::linear(at::relu(at::linear(x.narrow(0, expert * kRows, kRows), wi.select(0, expert))),
                                         wo.select(0, expert)));
            return at::cat(parts);
          },
      .leaves = {x, wi, wo}};
}

// x is the residual stream, f32.
Operation rms_norm(at::ScalarType dtype) {
  const auto x = random({kTokens, kModel}, at::kFloat), scale = random({kModel}, at::kFloat);
  const Form kernel = [=] { return ops::rms_norm(x, scale, 1e-6, dtype); };
  return {.kernel = kernel,
          .plain = in_plain_form(kernel),
          .aten = [=] { return at::rms_norm(x, {kModel}, scale, 1e-6).to(dtype); },
          .leaves = {x, scale}};
}

Operation cross_entropy(at::ScalarType dtype) {
  const auto hidden = random({kTargets, kModel}, dtype), weight = random({kVocab, kModel}, dtype, 0.03);
  const auto labels = at::randint(kVocab, {kTargets}, at::kLong);
  const Form kernel = [=] { return ops::linear_cross_entropy(hidden, weight, labels, 1.0).sum; };
  return {.kernel = kernel,
          .plain = in_plain_form(kernel),
          .aten =
              [=] {
                return at::cross_entropy_loss(at::linear(hidden, weight).to(at::kFloat), labels, {},
                                              at::Reduction::Sum);
              },
          .leaves = {hidden, weight}};
}

Operation routing(at::ScalarType dtype) {
  const auto x = random({kTokens, kModel}, dtype), weight = random({64, kModel}, at::kFloat, 0.03);
  const Form kernel = [=] {
    const auto routing = ops::route(ops::router_logits(x, weight, {}, {}), {}, {.expert_capacity = {20}});
    return routing.load_balance_loss + routing.gate.sum();
  };
  return {.kernel = kernel, .plain = in_plain_form(kernel), .aten = {}, .leaves = {x, weight}};
}

}  // namespace

void add_layers() {
  const std::vector<at::ScalarType> both = {at::kBFloat16, at::kFloat};
  add_operation("product 1024 x 768 x 768", both, linear);
  add_operation("feed-forward 1024 x 768 x 3072", both, feed_forward);
  add_operation("8 experts, 1024 x 768 x 3072", both, experts);
  add_operation("rms norm 1024 x 768", both, rms_norm);
  add_operation("cross entropy 228 x 768 x 32128", both, cross_entropy);
  add_operation("routing 1024 x 768 to 64 experts", both, routing);
}

}  // namespace switchyard::bench
