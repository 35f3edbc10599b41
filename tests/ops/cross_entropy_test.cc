#include "ops/cross_entropy.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/CPUAllocator.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>

#include "base/error.h"
#include "ops/gradient_check.h"
#include "ops/reference.h"

namespace switchyard::ops {
namespace {

using test::evaluate;
using test::expect_gradients_match_differences;
using test::expect_same_as_f64;
using test::random_tensor;
using test::relative_error;
using test::Tensors;
using test::tolerance_of;

at::Tensor random_labels(int64_t tokens, int64_t vocab, uint64_t seed, bool some_ignored = true) {
  NoiseStream pick({.seed = seed, .purpose = NoisePurpose::kShuffle});
  std::vector<int64_t> labels;
  for (int64_t token = 0; token < tokens; ++token)
    labels.push_back(
        some_ignored && pick.below(4) == 0 ? -100 : static_cast<int64_t>(pick.below(static_cast<uint64_t>(vocab))));
  return at::tensor(labels, at::kLong);
}

at::Tensor both_sums(const CrossEntropy& loss) { return at::cat({loss.sum.view({1}), loss.z_sum.view({1})}); }

// Two tokens, three classes: hidden is the logits, since the weight is the identity.
TEST(CrossEntropy, MatchesTheFormulaByHand) {
  const auto hidden = at::tensor({1.0, 2.0, 3.0, 0.5, -1.0, 0.0, 4.0, 5.0, 6.0}, at::kDouble).view({3, 3});
  const auto identity = at::tensor({1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0}, at::kDouble).view({3, 3});
  const double z0 = std::log(std::exp(0.5) + std::exp(1.0) + std::exp(1.5));
  const double z1 = std::log(std::exp(0.25) + std::exp(-0.5) + std::exp(0.0));
  for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    const auto loss =
        linear_cross_entropy(hidden.to(dtype), identity.to(dtype), at::tensor({2, 1, -100}, at::kLong), 0.5);
    EXPECT_NEAR(loss.sum.item<double>(), (z0 - 1.5) + (z1 + 0.5), 1e-6);
    EXPECT_NEAR(loss.z_sum.item<double>(), z0 * z0 + z1 * z1, 2e-6);
    EXPECT_EQ(loss.num_labels, 2);
    EXPECT_EQ(loss.num_correct, 1);
    EXPECT_EQ(loss.sum.scalar_type(), dtype == at::kDouble ? at::kDouble : at::kFloat);
  }
}

// T5X test_moe_loss_fn: logits 0 to 23, one layer's balance loss 0.2 x 0.1 and z-loss 0.1 x 0.01, no normalising
// factor.
TEST(CrossEntropy, PublishedMoeLoss) {
  const auto hidden = at::arange(24, at::kDouble).view({8, 3});
  const auto identity = at::tensor({1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0}, at::kDouble).view({3, 3});
  const auto labels = at::tensor({1, 2, 1, -100, -100, 1, -100, 2}, at::kLong);  // weight 0 is no label
  const auto loss = linear_cross_entropy(hidden, identity, labels, 1.0);
  EXPECT_NEAR(loss.sum.item<double>() + 0.2 * 0.1 + 0.1 * 0.01, 5.0590298, 1e-7);
  EXPECT_EQ(loss.num_correct, 2);
}

TEST(CrossEntropy, GradientsMatchDifferences) {
  const auto labels = random_labels(9, 11, 3);
  expect_gradients_match_differences(
      [&](const Tensors& in) { return both_sums(linear_cross_entropy(in[0], in[1], labels, 0.7)); },
      {random_tensor({9, 4}, 1), random_tensor({11, 4}, 2)}, 44, 1e-6);
}

TEST(CrossEntropy, FusedMatchesTheReferenceOverShapes) {
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    for (const auto& [tokens, d_model, vocab] : std::vector<std::array<int64_t, 3>>{
             {1, 1, 2}, {1, 64, 5}, {7, 16, 64}, {7, 64, 64}, {257, 64, 130}, {130, 192, 65}, {300, 128, 1000}}) {
      SCOPED_TRACE(testing::Message() << toString(dtype) << " " << tokens << " " << d_model << " " << vocab);
      const auto labels = random_labels(tokens, vocab, 3, tokens > 1);
      const Tensors inputs = {random_tensor({tokens, d_model}, 1, dtype), random_tensor({vocab, d_model}, 2, dtype)};
      const auto call = [&](const Tensors& in) { return both_sums(linear_cross_entropy(in[0], in[1], labels, 0.4)); };
      const auto plain = [&](const Tensors& in) {
        return both_sums(reference::linear_cross_entropy(in[0], in[1], labels, 0.4));
      };
      const auto left = evaluate(call, inputs);
      const auto right = evaluate(plain, {inputs[0].to(at::kDouble), inputs[1].to(at::kDouble)});
      EXPECT_LE(relative_error(left.value, right.value), 4e-6) << "sums are f32 whatever the inputs";
      for (size_t input = 0; input < 2; ++input)
        EXPECT_LE(relative_error(left.gradients[input], right.gradients[input]), tolerance_of(dtype))
            << "input " << input;
      const auto counts = linear_cross_entropy(inputs[0], inputs[1], labels, 0.4);
      const auto expected =
          reference::linear_cross_entropy(inputs[0].to(at::kDouble), inputs[1].to(at::kDouble), labels, 0.4);
      EXPECT_EQ(counts.num_labels, expected.num_labels);
      EXPECT_EQ(counts.num_correct, expected.num_correct);
      EXPECT_LE(relative_error(counts.token_losses, expected.token_losses), 4e-6);
    }
}

TEST(CrossEntropy, EachSumHasItsOwnGradient) {
  const auto labels = random_labels(20, 70, 3);
  const Tensors inputs = {random_tensor({20, 64}, 1, at::kFloat), random_tensor({70, 64}, 2, at::kFloat, 0.3)};
  for (const bool z : {false, true})
    expect_same_as_f64(
        [&](const Tensors& in) {
          const auto loss = linear_cross_entropy(in[0], in[1], labels, 1.0);
          return z ? loss.z_sum : loss.sum;
        },
        [&](const Tensors& in) {
          const auto loss = reference::linear_cross_entropy(in[0], in[1], labels, 1.0);
          return z ? loss.z_sum : loss.sum;
        },
        inputs, 4e-6);
}

TEST(CrossEntropy, OnlyOneInputMayNeedAGradient) {
  const auto labels = random_labels(20, 70, 3);
  const auto hidden = random_tensor({20, 64}, 1, at::kFloat), weight = random_tensor({70, 64}, 2, at::kFloat, 0.3);
  const auto both = evaluate([&](const Tensors& in) { return linear_cross_entropy(in[0], in[1], labels, 1.0).sum; },
                             {hidden, weight});
  const auto first =
      evaluate([&](const Tensors& in) { return linear_cross_entropy(in[0], weight, labels, 1.0).sum; }, {hidden});
  const auto second =
      evaluate([&](const Tensors& in) { return linear_cross_entropy(hidden, in[0], labels, 1.0).sum; }, {weight});
  EXPECT_LT(relative_error(first.gradients[0], both.gradients[0]), 1e-6);
  EXPECT_LT(relative_error(second.gradients[0], both.gradients[1]), 1e-6);
}

TEST(CrossEntropy, IgnoredRowsGetNoGradientWhateverTheyHold) {
  const auto labels = at::tensor({3, -100, 5}, at::kLong);
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    auto hidden = random_tensor({3, 64}, 1, dtype);
    const auto weight = random_tensor({32, 64}, 2, dtype);
    const auto call = [&](const Tensors& in) { return both_sums(linear_cross_entropy(in[0], in[1], labels, 1.0)); };
    const auto before = evaluate(call, {hidden, weight});
    hidden[1].fill_(100.0);
    const auto after = evaluate(call, {hidden, weight});
    EXPECT_TRUE(after.value.equal(before.value));
    EXPECT_EQ(after.gradients[0][1].abs().sum().item<double>(), 0.0);
    EXPECT_TRUE(after.gradients[1].equal(before.gradients[1]));
  }
}

TEST(CrossEntropy, LargeLogitsStayFinite) {
  const auto hidden = random_tensor({5, 64}, 1, at::kFloat, 300.0), weight = random_tensor({100, 64}, 2, at::kFloat);
  const auto labels = random_labels(5, 100, 1, false);
  const auto loss = linear_cross_entropy(hidden, weight, labels, 1.0);
  const auto exact = reference::linear_cross_entropy(hidden.to(at::kDouble), weight.to(at::kDouble), labels, 1.0);
  EXPECT_LT(relative_error(loss.sum, exact.sum), 1e-5);  // logits of thousands cancel to a loss of hundreds
}

TEST(CrossEntropy, NoLabelsGiveZero) {
  const auto loss = linear_cross_entropy(random_tensor({2, 8}, 1, at::kFloat), random_tensor({9, 8}, 2, at::kFloat),
                                         at::tensor({-100, -100}, at::kLong), 1.0);
  EXPECT_EQ(loss.sum.item<double>(), 0.0);
  EXPECT_EQ(loss.z_sum.item<double>(), 0.0);
  EXPECT_EQ(loss.num_labels, 0);
}

TEST(CrossEntropy, RefusesLabelsOutsideTheVocabulary) {
  const auto hidden = at::zeros({2, 8}), weight = at::zeros({9, 8});
  EXPECT_THROW(linear_cross_entropy(hidden, weight, at::tensor({0, 9}, at::kLong), 1.0), Error);
  EXPECT_THROW(linear_cross_entropy(hidden, weight, at::tensor({0, -1}, at::kLong), 1.0), Error);
  EXPECT_THROW(linear_cross_entropy(hidden, weight, at::tensor({0}, at::kLong), 1.0), Error);
  EXPECT_THROW(label_log_probabilities(hidden, weight, at::tensor({0, 9}, at::kLong), 1.0), Error);
}

TEST(LabelLogProbabilities, SumToTheLoss) {
  for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    const auto hidden = random_tensor({140, 64}, 1, dtype), weight = random_tensor({200, 64}, 2, dtype, 0.5);
    const auto labels = random_labels(140, 200, 4);
    const auto log_probabilities = label_log_probabilities(hidden, weight, labels, 0.5);
    const auto logits = hidden.to(at::kDouble).matmul(weight.to(at::kDouble).t()) * 0.5;
    const auto exact = at::log_softmax(logits, 1).gather(1, labels.clamp_min(0).unsqueeze(1)).squeeze(1) * labels.ge(0);
    EXPECT_LT(relative_error(log_probabilities, exact), dtype == at::kDouble ? 1e-12 : 1e-6);
    EXPECT_NEAR(-log_probabilities.sum().item<double>(),
                linear_cross_entropy(hidden, weight, labels, 0.5).sum.item<double>(), 1e-2);
    EXPECT_FALSE(log_probabilities.requires_grad());
  }
}

// The loss, scoring and decoding see the same logits, for vocabularies of any size and for few and many rows.
TEST(VocabularyLogits, AreThoseOfTheLoss) {
  for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16})
    for (const int64_t vocab : {1, 64, 200, 1000})
      for (const int64_t rows : {1, 8, 9, 140}) {
        SCOPED_TRACE(testing::Message() << dtype << " " << rows << " x " << vocab);
        const auto hidden = random_tensor({rows, 64}, 1, dtype, 3.0), weight = random_tensor({vocab, 64}, 2, dtype);
        const auto logits = vocabulary_logits(hidden, weight, 0.3);
        EXPECT_EQ(logits.scalar_type(), dtype == at::kDouble ? at::kDouble : at::kFloat);
        EXPECT_LT(relative_error(logits, hidden.to(at::kDouble).matmul(weight.to(at::kDouble).t()) * 0.3),
                  tolerance_of(at::kFloat));
        const auto labels = random_labels(rows, vocab, 4, /*some_ignored=*/false);
        const auto chosen = at::log_softmax(logits, 1).gather(1, labels.unsqueeze(1)).squeeze(1);
        // Absolute: logits of some dozens have steps of 4e-6 in f32.
        EXPECT_LT((label_log_probabilities(hidden, weight, labels, 0.3) - chosen).abs().max().item<double>(), 1e-5);
        EXPECT_EQ(linear_cross_entropy(hidden, weight, logits.argmax(1), 0.3).num_correct, rows);
      }
}

TEST(VocabularyLogits, GradientsMatchF64) {
  expect_gradients_match_differences([](const Tensors& in) { return vocabulary_logits(in[0], in[1], 0.3); },
                                     {random_tensor({3, 5}, 1), random_tensor({7, 5}, 2)});
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    for (const int64_t vocab : {128, 200})
      expect_same_as_f64([](const Tensors& in) { return vocabulary_logits(in[0], in[1], 0.3); },
                         [](const Tensors& in) { return in[0].matmul(in[1].t()) * 0.3; },
                         {random_tensor({20, 64}, 1, dtype), random_tensor({vocab, 64}, 2, dtype)},
                         tolerance_of(dtype));
}

// Counts the bytes that tensors hold at once, through the allocator that they come from.
class CountingAllocator final : public c10::Allocator {
 public:
  explicit CountingAllocator(c10::Allocator* inner) : inner_(inner) {}
  c10::DataPtr allocate(size_t bytes) override {
    held_ += bytes;
    peak_ = std::max(peak_.load(), held_.load());
    auto* block = new Block{inner_->allocate(bytes), this, bytes};
    return {block->data.get(), block, &release, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }
  size_t peak() const { return peak_; }
  void restart() { peak_ = held_.load(); }

 private:
  struct Block {
    c10::DataPtr data;
    CountingAllocator* owner;
    size_t bytes;
  };
  static void release(void* context) {
    auto* block = static_cast<Block*>(context);
    block->owner->held_ -= block->bytes;
    delete block;
  }
  c10::Allocator* inner_;
  std::atomic<size_t> held_ = 0, peak_ = 0;
};

TEST(CrossEntropy, KeepsNoLogits) {
  constexpr int64_t kTokens = 512, kModel = 64, kVocab = 32128;
  const auto labels = random_labels(kTokens, kVocab, 1);
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const auto hidden = random_tensor({kTokens, kModel}, 1, dtype).requires_grad_(true);
    const auto weight = random_tensor({kVocab, kModel}, 2, dtype).requires_grad_(true);
    c10::Allocator* const usual = c10::GetCPUAllocator();
    static auto* const counting = new CountingAllocator(usual);  // outlives every block that it hands out
    counting->restart();
    c10::SetCPUAllocator(counting, /*priority=*/255);
    {
      const auto loss = linear_cross_entropy(hidden, weight, labels, 1.0);
      (loss.sum + loss.z_sum).backward();
    }
    c10::SetCPUAllocator(usual, /*priority=*/255);
    EXPECT_GT(counting->peak(), 0U);
    EXPECT_LT(counting->peak(), static_cast<size_t>(kTokens * kVocab) * 2 / 3) << "well below a bf16 [tokens, vocab]";
  }
}

}  // namespace
}  // namespace switchyard::ops
