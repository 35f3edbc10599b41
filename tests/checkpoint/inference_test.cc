// Models opened for inference: the values of an ordinary opening, read when they are wanted.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros_like.h>
#include <gmock/gmock.h>

#include "base/error.h"
#include "base/files.h"
#include "checkpoint/model_directory.h"
#include "checkpoint/stored_tensors.h"
#include "checkpoint/testing.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::ThrowsMessage;

ModelConfig small(bool gated, bool tie_output) {
  auto config = small_model("switch-tiny-4", gated, tie_output);
  config.routing.num_experts = 12;
  return config;
}

at::Tensor some_ids(int64_t length) { return at::arange(length, at::kLong).mul(37).remainder(101).view({1, length}); }

struct Outputs {
  at::Tensor hidden, logits;
  StackOutput encoder;
};

Outputs run(const ModelConfig& config, const ComputeWeights& weights, int64_t length) {
  const auto encoder = encode(config, weights, {some_ids(length)}, {});
  const auto decoder = decode(config, weights, {some_ids(5)}, encoder.hidden, {}, {});
  return {encoder.hidden, output_logits(weights, decoder.hidden), encoder};
}

struct Case {
  bool gated, tie_output;
  at::ScalarType stored, compute;
};
class ForInference : public testing::TestWithParam<Case> {};

TEST_P(ForInference, ComputesWhatTheWholeModelComputes) {
  const auto& [gated, tie_output, stored, compute] = GetParam();
  ScratchFolder folder;
  const auto config = small(gated, tie_output);
  save_model(folder / "model", config, initialize(config, 3),
             {.dtype = stored, .max_shard_bytes = gated ? uint64_t{400'000} : uint64_t{1} << 40});
  const auto whole = open_model(folder / "model", compute == at::kDouble ? at::kDouble : at::kFloat);
  const auto lazy = open_for_inference(folder / "model", compute);
  EXPECT_EQ(lazy.config.tie_output, whole.config.tie_output);
  const auto weights = cast_weights(whole.config, whole.weights, compute);
  for (const int64_t length : {2, 40}) {  // the second reads further experts
    const auto expected = run(whole.config, weights, length), actual = run(lazy.config, lazy.weights, length);
    EXPECT_TRUE(at::equal(expected.hidden, actual.hidden)) << length;
    EXPECT_TRUE(at::equal(expected.logits, actual.logits)) << length;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Dtypes, ForInference,
    testing::Values(Case{false, true, at::kFloat, at::kFloat}, Case{false, true, at::kFloat, at::kBFloat16},
                    Case{true, false, at::kBFloat16, at::kBFloat16}, Case{false, true, at::kHalf, at::kBFloat16},
                    Case{true, true, at::kBFloat16, at::kFloat}, Case{true, false, at::kFloat, at::kDouble}));

TEST(ForInference, ReadsTheExpertsThatGotRowsAndNoOthers) {
  ScratchFolder folder;
  const auto config = small(false, true);
  save_model(folder / "model", config, initialize(config, 3));
  const auto whole = open_model(folder / "model", at::kFloat);
  const auto lazy = open_for_inference(folder / "model", at::kFloat);
  const auto output = run(lazy.config, lazy.weights, 6);
  ASSERT_FALSE(output.encoder.sparse_layers.empty());
  const auto& layer = output.encoder.sparse_layers[0];
  ASSERT_EQ(layer.name, "encoder.1");
  int64_t absent = 0;
  for (int64_t expert = 0; expert < 12; ++expert) {
    const bool wanted = layer.routing.dispatch.rows_by_expert()[static_cast<size_t>(expert)] > 0;
    absent += wanted ? 0 : 1;
    const auto& held = lazy.weights.encoder.blocks[1].feed_forward.experts.wo;
    const auto expected = whole.weights.encoder.blocks[1].feed_forward.wo.select(0, expert);
    EXPECT_TRUE(at::equal(held.select(0, expert), wanted ? expected : at::zeros_like(expected))) << expert;
  }
  EXPECT_GE(absent, 6);
}

TEST(ForInference, AFileThatChangesMeanwhileIsNamed) {
  ScratchFolder folder;
  const auto config = small(false, true);
  const auto file = folder / "model/model.safetensors";
  save_model(folder / "model", config, initialize(config, 3));
  const auto lazy = open_for_inference(folder / "model", at::kFloat);
  fs::resize_file(file, 4096);
  EXPECT_THAT([&] { run(lazy.config, lazy.weights, 6); },
              ThrowsMessage<Error>(testing::AllOf(HasSubstr(file.string()), HasSubstr("changed while it was in use"))));
}

// A file that is replaced as everything here replaces files stays readable by those who opened it before.
TEST(ForInference, AFileThatIsReplacedDoesNotMatter) {
  ScratchFolder folder;
  const auto config = small(false, true);
  save_model(folder / "model", config, initialize(config, 3));
  const auto whole = open_for_inference(folder / "model", at::kFloat);
  const auto expected = run(whole.config, whole.weights, 40).logits;
  const auto lazy = open_for_inference(folder / "model", at::kFloat);
  save_model(folder / "other", config, initialize(config, 4));
  fs::rename(folder / "other/model.safetensors", folder / "model/model.safetensors");
  EXPECT_TRUE(at::equal(run(lazy.config, lazy.weights, 40).logits, expected));
}

// Convention: HF 5.23.0. A tied config scales, whatever head the file has.
TEST(ForInference, TakesAHeadOfItsOwnAndScales) {
  ScratchFolder folder;
  auto config = small(false, true);
  config.d_model = 80;  // its root is no power of two
  const auto weights = initialize(config, 3), other = initialize(config, 4);
  save_model(folder / "model", config, weights);
  std::vector<TensorToWrite> tensors{{"lm_head.weight", other.shared, at::kFloat}};
  for (const auto& [name, tensor] : read_all(list_model_tensors(folder / "model")))
    tensors.push_back({name, tensor, at::kFloat});
  write_safetensors(folder / "model/model.safetensors", tensors);
  const auto whole = open_model(folder / "model", at::kFloat);
  const auto lazy = open_for_inference(folder / "model", at::kBFloat16);
  EXPECT_FALSE(lazy.config.tie_output);
  EXPECT_TRUE(at::equal(lazy.weights.output, cast_weights(whole.config, whole.weights, at::kBFloat16).output));
  EXPECT_DOUBLE_EQ(lazy.weights.output_scale, 1.0 / std::sqrt(80.0));
}

TEST(ModelFiles, PassThroughTensorByTensor) {
  for (const bool tie_output : {true, false}) {
    ScratchFolder folder;
    const auto config = small(true, tie_output);
    save_model(folder / "model", config, initialize(config, 3));
    const SaveOptions half{.dtype = at::kBFloat16, .max_shard_bytes = 300'000};
    const auto loaded = open_model(folder / "model", at::kFloat);
    save_model(folder / "expected", loaded.config, loaded.weights, half);
    save_model(folder / "actual", open_files(folder / "model"), half);
    int files = 0;
    for (const auto& entry : fs::directory_iterator(folder / "expected")) {
      EXPECT_EQ(read_file(entry.path()), read_file(folder / "actual" / entry.path().filename())) << entry.path();
      ++files;
    }
    EXPECT_GT(files, 5);
  }
}

}  // namespace
}  // namespace switchyard
