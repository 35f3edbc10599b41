// Experts in bounded memory: the results are those of a model that is all in memory.
#include "checkpoint/experts_on_demand.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <gmock/gmock.h>

#include "base/error.h"
#include "checkpoint/model_directory.h"
#include "checkpoint/testing.h"
#include "model/decoder_cache.h"
#include "ops/quantized.h"

namespace switchyard {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr int64_t kNumExperts = 12;

ModelConfig small() {
  auto config = small_model("switch-tiny-4", /*gated=*/true);
  config.routing.num_experts = kNumExperts;
  config.d_model = 128;  // quantised rows are multiples of 64
  config.d_ff = 192;
  config.d_kv = 32;
  config.num_heads = 4;
  return config;
}

at::Tensor some_ids(int64_t length) { return at::arange(length, at::kLong).mul(37).remainder(101).view({1, length}); }

std::vector<at::Tensor> run(const InferenceModel& model) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> results;
  for (const int64_t length : {50, 3, 50}) {
    const auto encoder = encode(model.config, model.weights, {some_ids(length)}, {.drop_tokens = false});
    DecoderCache cache(model.weights, 1, 8);
    const auto slots = cache.add_rows(model.weights, encoder.hidden, {});
    results.push_back(encoder.hidden);
    for (int64_t step = 0; step < 3; ++step)
      results.push_back(
          decode_step(model.config, model.weights, cache, slots, some_ids(step + 2).slice(1, step, step + 1)));
  }
  return results;
}

int64_t bytes_of_one(const InferenceModel& model) {
  const auto& [wi, wi_1, wo] = model.weights.encoder.blocks[1].feed_forward.experts;
  return static_cast<int64_t>(wi.nbytes() + wi_1.nbytes() + wo.nbytes()) / kNumExperts;
}

struct Case {
  at::ScalarType stored, compute;
  friend std::ostream& operator<<(std::ostream& out, const Case& each) {
    return out << toString(each.stored) << " in " << toString(each.compute);
  }
};
class BoundedExperts : public testing::TestWithParam<Case> {};

TEST_P(BoundedExperts, GiveTheBitsOfUnboundedOnes) {
  const auto [stored, compute] = GetParam();
  ScratchFolder folder;
  save_model(folder / "model", small(), initialize(small(), 3), {.dtype = stored});
  const auto whole = open_for_inference(folder / "model", compute);
  const auto expected = run(whole);
  const auto all = whole.experts->reads();
  const int64_t one = bytes_of_one(whole);
  ASSERT_GT(all.read, 12);  // more than any bound below holds
  EXPECT_EQ(all.bytes, all.read * one);
  for (const int64_t experts : {1, 2, 5, 9}) {
    const int64_t limit = experts * one + one / 2;
    const auto bounded = open_for_inference(folder / "model", compute, at::kCPU, limit);
    const auto actual = run(bounded);
    for (size_t n = 0; n < expected.size(); ++n) EXPECT_TRUE(at::equal(expected[n], actual[n])) << experts << " " << n;
    const auto reads = bounded.experts->reads();
    EXPECT_EQ(reads.wanted, all.wanted);
    EXPECT_GT(reads.read, all.read);
    EXPECT_EQ(reads.bytes_read % reads.read, 0);
    EXPECT_LE(reads.peak_bytes, experts * one);
    EXPECT_LT(reads.hit_rate(), all.hit_rate());
  }
}

INSTANTIATE_TEST_SUITE_P(Dtypes, BoundedExperts,
                         testing::Values(Case{at::kFloat, at::kFloat}, Case{at::kFloat, at::kBFloat16},
                                         Case{at::kBFloat16, at::kBFloat16}, Case{at::kChar, at::kBFloat16},
                                         Case{at::kByte, at::kBFloat16}, Case{at::kByte, at::kFloat}));

TEST(BoundedExperts, RefuseMemoryForLessThanOne) {
  ScratchFolder folder;
  save_model(folder / "model", small(), initialize(small(), 3));
  EXPECT_THAT([&] { open_for_inference(folder / "model", at::kFloat, at::kCPU, 1000); },
              ThrowsMessage<Error>(testing::AllOf(HasSubstr("experts may take 1000 bytes"), HasSubstr("encoder.1"))));
  const auto dense = small_model("t5-tiny");
  save_model(folder / "dense", dense, initialize(dense, 3));
  EXPECT_THAT([&] { open_for_inference(folder / "dense", at::kFloat, at::kCPU, 1 << 30); },
              ThrowsMessage<Error>(HasSubstr("has no experts")));
}

// A layer of 4 experts of one number each, which count how often they are read.
class OneLayer : public testing::Test {
 protected:
  explicit OneLayer() {
    for (int64_t expert = 0; expert < 4; ++expert)
      stored_.push_back({at::kFloat, {1, 4096}, [this, expert](int64_t, const at::Tensor& to) {
                           ++times_read_.at(static_cast<size_t>(expert));
                           to.fill_(static_cast<double>(expert + 1));
                         }});
    layer_ = experts_.add_layer("encoder.1", 4);
    std::vector<const StoredTensor*> all;
    for (const auto& each : stored_) all.push_back(&each);
    stacked_ = experts_.add(layer_, all, at::kFloat);
  }

  // The runs, checked to have their experts.
  std::vector<Slice> use(const std::vector<int64_t>& num_rows) {
    std::vector<Slice> runs;
    experts_.for_each_run(layer_, num_rows, [&](Slice run) {
      runs.push_back(run);
      for (int64_t expert = run.begin; expert < run.end; ++expert) {
        if (num_rows[static_cast<size_t>(expert)] == 0) continue;
        EXPECT_TRUE(stacked_.select(0, expert).eq(static_cast<double>(expert + 1)).all().item<bool>()) << expert;
      }
    });
    return runs;
  }

  ExpertsOnDemand experts_{2 * 4096 * 4};
  std::vector<StoredTensor> stored_;
  std::vector<int> times_read_ = {0, 0, 0, 0};
  size_t layer_ = 0;
  at::Tensor stacked_;
};

TEST_F(OneLayer, GivesUpTheOneUsedTheLongestTimeAgo) {
  use({1, 0, 0, 0});
  use({0, 1, 0, 0});
  use({1, 0, 0, 0});  // so that 1 is the older
  use({0, 0, 3, 0});
  EXPECT_THAT(times_read_, testing::ElementsAre(1, 1, 1, 0));
  use({1, 0, 0, 0});
  EXPECT_THAT(times_read_, testing::ElementsAre(1, 1, 1, 0));
  use({0, 1, 0, 0});
  EXPECT_THAT(times_read_, testing::ElementsAre(1, 2, 1, 0));
  const auto reads = experts_.reads();
  EXPECT_EQ(reads.wanted, 6);
  EXPECT_EQ(reads.read, 4);
  EXPECT_EQ(reads.bytes_read, 4 * 4096 * 4);
  EXPECT_EQ(reads.bytes, 2 * 4096 * 4);
}

TEST_F(OneLayer, RunsCoverAllExpertsWithAsManyAsFit) {
  EXPECT_THAT(use({0, 1, 0, 1}), testing::ElementsAre(Slice{0, 4}));
  EXPECT_THAT(use({1, 1, 0, 1}), testing::ElementsAre(Slice{0, 3}, Slice{3, 4}));
  EXPECT_THAT(use({0, 0, 0, 0}), testing::ElementsAre(Slice{0, 4}));
  EXPECT_THAT(use({1, 1, 1, 1}), testing::ElementsAre(Slice{0, 2}, Slice{2, 4}));
}

}  // namespace
}  // namespace switchyard
