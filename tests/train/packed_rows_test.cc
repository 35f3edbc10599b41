// Packed rows compute what the same examples compute in rows of their own: losses, routing, noise and gradients.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include "base/random.h"
#include "eval/text_loss.h"
#include "model/loss.h"
#include "testing/model.h"
#include "testing/tensors.h"
#include "train/step.h"

namespace switchyard {
namespace {

// Lengths of the examples of each row, inputs and targets.
using Lengths = std::vector<std::vector<std::pair<int64_t, int64_t>>>;

Batch packed_batch(const Lengths& rows, int64_t encoder_length, int64_t decoder_length) {
  Batch batch{.batch_size = static_cast<int64_t>(rows.size()),
              .encoder_length = encoder_length,
              .decoder_length = decoder_length,
              .row_example = {0}};
  NoiseStream noise({.seed = 5, .purpose = NoisePurpose::kShuffle});
  const auto append = [&](std::vector<int32_t>& ids, std::vector<int32_t>& segments, int64_t size, int32_t segment) {
    for (int64_t n = 0; n < size; ++n) ids.push_back(static_cast<int32_t>(2 + noise.below(60)));
    segments.resize(ids.size(), segment);
  };
  const auto pad = [](std::vector<int32_t>& side, int64_t size) { side.resize(static_cast<size_t>(size)); };
  for (size_t row = 0; row < rows.size(); ++row) {
    for (size_t n = 0; n < rows[row].size(); ++n) {
      append(batch.encoder_input_tokens, batch.encoder_segment, rows[row][n].first, static_cast<int32_t>(n + 1));
      append(batch.decoder_target_tokens, batch.decoder_segment, rows[row][n].second, static_cast<int32_t>(n + 1));
      batch.part.push_back(static_cast<int32_t>(n % 2));
    }
    for (auto* side : {&batch.encoder_input_tokens, &batch.encoder_segment})
      pad(*side, static_cast<int64_t>(row + 1) * encoder_length);
    for (auto* side : {&batch.decoder_target_tokens, &batch.decoder_segment})
      pad(*side, static_cast<int64_t>(row + 1) * decoder_length);
    batch.row_example.push_back(batch.row_example.back() + static_cast<int64_t>(rows[row].size()));
  }
  return batch;
}

// Where the tokens of the examples lie in a stack: [packed position], [position in rows of their own].
using Places = std::vector<std::pair<int64_t, int64_t>>;

struct Pair {
  Batch packed, unpacked;
  Places encoder, decoder;
};

Places unpack(const Batch& packed, const std::vector<int32_t>& ids, const std::vector<int32_t>& segments,
              int64_t length, std::vector<int32_t>& to) {
  Places places;
  to.assign(static_cast<size_t>(packed.num_examples() * length), 0);
  for (int64_t row = 0; row < packed.batch_size; ++row)
    for (int64_t n = 0, position = 0; n < length; ++n) {
      const auto at = static_cast<size_t>(row * length + n);
      if (segments[at] == 0) continue;
      position = n > 0 && segments[at - 1] == segments[at] ? position + 1 : 0;
      const int64_t example = packed.row_example[static_cast<size_t>(row)] + segments[at] - 1;
      places.emplace_back(at, example * length + position);
      to[static_cast<size_t>(places.back().second)] = ids[at];
    }
  return places;
}

Pair make_pair(const Lengths& rows, int64_t encoder_length, int64_t decoder_length) {
  Pair pair;
  pair.packed = packed_batch(rows, encoder_length, decoder_length);
  pair.unpacked = {.batch_size = pair.packed.num_examples(),
                   .encoder_length = encoder_length,
                   .decoder_length = decoder_length,
                   .part = pair.packed.part};
  const auto& packed = pair.packed;
  pair.encoder = unpack(packed, packed.encoder_input_tokens, packed.encoder_segment, encoder_length,
                        pair.unpacked.encoder_input_tokens);
  pair.decoder = unpack(packed, packed.decoder_target_tokens, packed.decoder_segment, decoder_length,
                        pair.unpacked.decoder_target_tokens);
  return pair;
}

Pair small() { return make_pair({{{5, 2}, {3, 3}, {4, 1}}, {{12, 6}}, {{1, 1}, {10, 4}}, {{6, 3}, {6, 3}}}, 12, 6); }
Pair multiples_of_64() {
  return make_pair({{{64, 20}, {30, 44}, {34, 64}}, {{128, 128}}, {{1, 1}, {100, 64}, {20, 40}}}, 128, 128);
}

ModelConfig with_noise(ModelConfig config) {
  config.dropout_rate = 0.1;
  config.expert_dropout_rate = 0.2;
  config.routing.jitter_noise = 0.1;
  config.routing.expert_capacity = 1000;  // does not bind
  return config;
}

struct Computed {
  Loss loss;
  std::vector<at::Tensor> gradients;
};

Computed compute(const ModelConfig& config, const Batch& batch, at::ScalarType dtype) {
  auto weights = initialize(config, 11);
  auto parameters = list_parameters(config, weights);
  for (auto& parameter : parameters)
    *parameter.tensor = parameter.tensor->to(dtype == at::kDouble ? at::kDouble : at::kFloat)
                            .requires_grad_(!parameter.spec.is_buffer());
  Computed computed;
  computed.loss =
      compute_loss(config, cast_weights(config, weights, dtype), to_tensors(batch, 0, batch.batch_size, at::kCPU),
                   {.training = true, .seed = 3, .step = 2}, {.z_loss = 0.01, .router_losses = false});
  (computed.loss.cross_entropy + computed.loss.total).backward();
  for (const auto& parameter : parameters) computed.gradients.push_back(parameter.tensor->grad());
  return computed;
}

void expect_same_routing(const StackOutput& packed, const StackOutput& unpacked, const Places& places) {
  ASSERT_EQ(packed.sparse_layers.size(), unpacked.sparse_layers.size());
  ASSERT_FALSE(packed.sparse_layers.empty());
  for (size_t n = 0; n < packed.sparse_layers.size(); ++n) {
    const auto& a = packed.sparse_layers[n].routing.expert_index;
    const auto& b = unpacked.sparse_layers[n].routing.expert_index;
    int64_t different = 0;
    for (const auto& [here, there] : places) different += a[here].item<int64_t>() != b[there].item<int64_t>();
    EXPECT_EQ(different, 0) << packed.sparse_layers[n].name << ", of " << places.size() << " tokens";
  }
}

void expect_same(const ModelConfig& config, const Pair& pair, at::ScalarType dtype, double tolerance) {
  const auto packed = compute(config, pair.packed, dtype), unpacked = compute(config, pair.unpacked, dtype);
  EXPECT_EQ(packed.loss.num_labels, unpacked.loss.num_labels);
  EXPECT_EQ(packed.loss.num_correct, unpacked.loss.num_correct);
  std::vector<double> difference(pair.packed.part.size()), sum(pair.packed.part.size());
  for (const auto& [here, there] : pair.decoder) {
    const auto example = static_cast<size_t>(there / pair.packed.decoder_length);
    const double a = packed.loss.token_losses[here].item<double>(),
                 b = unpacked.loss.token_losses[there].item<double>();
    sum[example] += b;
    difference[example] += a - b;
  }
  for (size_t example = 0; example < sum.size(); ++example)
    EXPECT_LE(std::abs(difference[example]), tolerance * sum[example]) << "example " << example;
  expect_same_routing(packed.loss.encoder, unpacked.loss.encoder, pair.encoder);
  expect_same_routing(packed.loss.decoder, unpacked.loss.decoder, pair.decoder);
  EXPECT_NEAR(packed.loss.router_z_loss, unpacked.loss.router_z_loss, tolerance * unpacked.loss.router_z_loss);
  for (size_t n = 0; n < packed.gradients.size(); ++n) {
    ASSERT_EQ(packed.gradients[n].defined(), unpacked.gradients[n].defined());
    if (!packed.gradients[n].defined()) continue;
    EXPECT_LE(test::relative_error(packed.gradients[n], unpacked.gradients[n]), 20 * tolerance)
        << parameter_specs(config)[n].name;
  }
}

struct Form {
  const char* name;
  void (*set)(ModelConfig&);
};

const std::vector<Form>& forms() {
  static const std::vector<Form> all = {{"top 1", [](ModelConfig&) {}},
                                        {"sampled second expert",
                                         [](ModelConfig& config) {
                                           config.routing.num_selected_experts = 2;
                                           config.routing.second_expert_policy = SecondExpertPolicy::kSampled;
                                           config.routing.second_expert_threshold = 0.5;
                                         }},
                                        {"sampled experts",
                                         [](ModelConfig& config) {
                                           config.routing.exploration = Exploration::kSample;
                                           config.routing.sample_temperature = 1.0;
                                         }},
                                        {"input dropout",
                                         [](ModelConfig& config) {
                                           config.routing.exploration = Exploration::kInputDropout;
                                           config.routing.router_dropout_rate = 0.2;
                                         }},
                                        {"gated", [](ModelConfig& config) {
                                           config.gated = true;
                                           config.activation = Activation::kGeluNew;
                                         }}};
  return all;
}

TEST(PackedRows, AreTheirExamplesInF64) {
  for (const auto& form : forms()) {
    SCOPED_TRACE(form.name);
    auto config = with_noise(test::tiny_model());
    form.set(config);
    expect_same(config, small(), at::kDouble, 1e-10);
  }
}

// By the fast kernels, which give a row the same bits whatever stands beside it: what differs is the order of sums over
// rows in gradients of weights.
TEST(PackedRows, AreTheirExamplesByTheKernels) {
  for (const auto& form : forms()) {
    SCOPED_TRACE(form.name);
    auto config = with_noise(test::fast_tiny_model());
    form.set(config);
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      expect_same(config, multiples_of_64(), dtype, dtype == at::kFloat ? 1e-6 : 1e-3);
      expect_same(config, small(), dtype, dtype == at::kFloat ? 1e-6 : 1e-3);
    }
  }
}

// Noise acts in the tests above: without it the loss is another one.
TEST(PackedRows, NoiseChangesTheLoss) {
  auto config = with_noise(test::tiny_model());
  const auto noisy = compute(config, small().packed, at::kDouble);
  config.dropout_rate = config.expert_dropout_rate = config.routing.jitter_noise = 0.0;
  const auto plain = compute(config, small().packed, at::kDouble);
  EXPECT_GT(std::abs(noisy.loss.cross_entropy.item<double>() - plain.loss.cross_entropy.item<double>()), 1e-3);
}

// Decoder inputs are the targets shifted within each example (seqio's fixtures), labels the targets.
TEST(PackedRows, DecoderInputsBeginWithPaddingInEverySegment) {
  const Batch batch{.batch_size = 1,
                    .encoder_length = 10,
                    .decoder_length = 7,
                    .encoder_input_tokens = {7, 8, 5, 1, 8, 4, 9, 3, 1, 0},
                    .decoder_target_tokens = {3, 9, 1, 4, 1, 0, 0},
                    .encoder_segment = {1, 1, 1, 1, 2, 2, 2, 2, 2, 0},
                    .decoder_segment = {1, 1, 1, 2, 2, 0, 0},
                    .row_example = {5, 7}};
  const auto input = to_tensors(batch, 0, 1, at::kCPU);
  const auto list = [](const at::Tensor& tensor) {
    const auto row = tensor.to(at::kLong).contiguous();
    return std::vector<int64_t>(row.const_data_ptr<int64_t>(), row.const_data_ptr<int64_t>() + row.numel());
  };
  using Row = std::vector<int64_t>;
  EXPECT_EQ(list(input.decoder.ids), (Row{0, 3, 9, 0, 4, 0, 0}));
  EXPECT_EQ(list(input.labels), (Row{3, 9, 1, 4, 1, -100, -100}));
  EXPECT_EQ(list(input.decoder.mask), (Row{1, 1, 1, 1, 1, 0, 0}));
  EXPECT_EQ(list(input.encoder.segment), (Row{1, 1, 1, 1, 2, 2, 2, 2, 2, 0}));
  EXPECT_EQ(list(input.encoder.example), (Row{5, 5, 5, 5, 6, 6, 6, 6, 6, 5}));
  const auto noise = packed_noise(input.encoder);  // positions 0123012340
  EXPECT_EQ(list(noise.number), (Row{50, 51, 52, 53, 60, 61, 62, 63, 64, 50}));
}

std::vector<int64_t> shifted(const std::vector<int64_t>& targets, const std::vector<int64_t>& segments = {}) {
  const auto row = [](const std::vector<int64_t>& ids) {
    auto tensor = at::empty({1, static_cast<int64_t>(ids.size())}, at::kLong);
    std::copy(ids.begin(), ids.end(), tensor.mutable_data_ptr<int64_t>());
    return tensor;
  };
  const auto inputs = shift_right(row(targets), segments.empty() ? at::Tensor() : row(segments)).contiguous();
  return {inputs.const_data_ptr<int64_t>(), inputs.const_data_ptr<int64_t>() + inputs.numel()};
}

// seqio's fixtures of decoder inputs; in rows that are not packed the last EOS stays in.
TEST(PackedRows, ShiftsAreSeqios) {
  using Row = std::vector<int64_t>;
  EXPECT_EQ(shifted({3, 8, 9, 5, 1, 0, 0}), (Row{0, 3, 8, 9, 5, 1, 0}));
  EXPECT_EQ(shifted({3, 9, 4, 1, 0}), (Row{0, 3, 9, 4, 1}));
  EXPECT_EQ(shifted({3, 9, 4, 5, 1}), (Row{0, 3, 9, 4, 5}));
  const Row segments = {1, 1, 1, 2, 2, 3, 3, 3, 0, 0};
  EXPECT_EQ(shifted({3, 8, 1, 9, 1, 5, 4, 1, 0, 0}, segments), (Row{0, 3, 8, 0, 9, 0, 5, 4, 0, 0}));
  EXPECT_EQ(shifted({3, 8, 1, 9, 6, 5, 4, 1, 0, 0}, segments), (Row{0, 3, 8, 0, 9, 0, 5, 4, 0, 0}));
}

struct Outcome {
  StepResult result;
  std::vector<at::Tensor> weights;
};

Outcome first_step(const ModelConfig& config, const Batch& batch, int64_t micro_batch_size) {
  Learner learner(config, initialize(config, 4), {.learning_rate = 0.1, .schedule = "constant"},
                  {.dtype = at::kBFloat16, .seed = 3, .micro_batch_size = micro_batch_size});
  Outcome outcome{learner.update(batch, 1), {}};
  auto weights = learner.weights();
  for (const auto& parameter : list_parameters(config, weights))
    outcome.weights.push_back(parameter.tensor->detach().clone());
  return outcome;
}

TEST(PackedRows, MicroBatchesAndThreadsComputeTheWholeBatch) {
  auto config = with_noise(test::fast_tiny_model());
  config.routing.expert_capacity = 0;  // slots run out
  config.routing.group_size = 128;     // one row of the encoder
  const auto batch = multiples_of_64().packed;
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const auto whole = first_step(config, batch, 0), cut = first_step(config, batch, 1);
  at::set_num_threads(2);
  const auto threaded = first_step(config, batch, 0);
  at::set_num_threads(threads);
  EXPECT_EQ(whole.result.examples, 7);
  EXPECT_EQ(whole.result.real_tokens, 128 + 128 + 121 + 128 + 128 + 105);
  EXPECT_EQ(whole.result.tokens, 3 * 256);
  EXPECT_EQ(whole.result.loss, threaded.result.loss);
  EXPECT_NEAR(whole.result.loss, cut.result.loss, 2e-6 * whole.result.loss);
  EXPECT_GT(mean_dropped_fraction(whole.result), 0.0);
  for (size_t n = 0; n < whole.result.layers.size(); ++n)
    EXPECT_EQ(whole.result.layers[n].statistics().expert_load, cut.result.layers[n].statistics().expert_load);
  for (size_t n = 0; n < whole.weights.size(); ++n)
    EXPECT_TRUE(whole.weights[n].equal(threaded.weights[n])) << parameter_specs(config)[n].name;
  ASSERT_EQ(whole.result.parts.size(), 2U);
  EXPECT_EQ(whole.result.parts[0].examples, 5);
  EXPECT_EQ(whole.result.parts[1].examples, 2);
  EXPECT_EQ(whole.result.parts[1].labels, 44 + 64);
  EXPECT_EQ(whole.result.parts[1].tokens, 30 + 100 + 44 + 64);
  EXPECT_NEAR(whole.result.parts[1].loss, cut.result.parts[1].loss, 1e-4);
}

}  // namespace
}  // namespace switchyard
