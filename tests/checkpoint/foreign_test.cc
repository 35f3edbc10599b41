// Files of other programs: PyTorch archives and T5X checkpoints.
#include <ATen/ops/equal.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>

#include "base/config.h"
#include "base/error.h"
#include "base/files.h"
#include "base/random.h"
#include "checkpoint/model_directory.h"
#include "checkpoint/stored_tensors.h"
#include "checkpoint/t5x.h"
#include "checkpoint/testing.h"
#include "checkpoint/torch_archive.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

fs::path fixture(const char* name) {
  const char* source =
      std::getenv("SWITCHYARD_SOURCE");  // set by ctest; else this file's place, where the compiler gives it whole
  const auto folder = source != nullptr ? fs::path(source) / "tests/checkpoint" : fs::path(__FILE__).parent_path();
  return folder / "fixtures" / name;
}

// For thousands of files that need not survive a power cut.
void write_unsynced(const fs::path& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

// fixtures/state_dict.bin was written by fixtures/make_state_dict.py with torch 2.13.0.
TEST(TorchArchive, ReadsWhatTorchSaved) {
  const auto tensors = read_all(list_torch_archive(fixture("state_dict.bin")));
  ASSERT_EQ(tensors.size(), 9u);
  const auto plain = at::tensor({0.f, 1.f, 2.f, 3.f, 4.f, 5.f, 6.f, 7.f, 8.f, 9.f, 10.f, 11.f}).view({3, 4});
  EXPECT_TRUE(at::equal(tensors.at("plain"), plain));
  EXPECT_TRUE(at::equal(tensors.at("transposed"), plain.t()));
  EXPECT_TRUE(at::equal(tensors.at("slice"), at::tensor({4.f, 5.f})));
  EXPECT_TRUE(at::equal(tensors.at("parameter"), at::tensor({1.5f, -2.f})));
  EXPECT_TRUE(at::equal(tensors.at("bf16"), at::tensor({1.f, -3.140625f}).to(at::kBFloat16)));
  EXPECT_TRUE(at::equal(tensors.at("fp16"), at::tensor({0.5f, -65504.f}).to(at::kHalf)));
  EXPECT_TRUE(at::equal(tensors.at("i64"), at::tensor({int64_t{-1}, int64_t{1} << 62}, at::kLong)));
  EXPECT_EQ(tensors.at("scalar").item<float>(), 7.25f);
  EXPECT_EQ(tensors.at("scalar").dim(), 0);
  EXPECT_EQ(tensors.at("empty").numel(), 0);
}

TEST(TorchArchive, RefusesAFileTruncatedAtAnyByte) {
  ScratchFolder folder;
  const auto bytes = read_file(fixture("state_dict.bin"));
  for (size_t length = 0; length < bytes.size(); length += length < 3200 ? 41 : 1) {
    write_unsynced(folder / "cut.bin", bytes.substr(0, length));
    EXPECT_THROW(list_torch_archive(folder / "cut.bin"), Error) << length << " bytes kept";
  }
}

TEST(TorchArchive, SurvivesDamageAnywhere) {
  ScratchFolder folder;
  const auto bytes = read_file(fixture("state_dict.bin"));
  NoiseStream noise({.seed = 3});
  int refused = 0;
  for (int round = 0; round < 400; ++round) {
    auto damaged = bytes;
    for (uint64_t change = 0; change <= noise.below(4); ++change)
      damaged[noise.below(damaged.size())] = static_cast<char>(noise.below(256));
    write_unsynced(folder / "damaged.bin", damaged);
    try {
      for (const auto& [name, tensor] : read_all(list_torch_archive(folder / "damaged.bin")))
        if (tensor.numel() > 0) (void)tensor.to(at::kDouble).sum().item<double>();  // every element lies in the file
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 80);
}

TEST(TorchArchive, NeverRunsCode) {
  ScratchFolder folder;
  auto bytes = read_file(fixture("state_dict.bin"));
  const std::string harmless = "torch._utils\n_rebuild_parameter\n", harmful = "posix_______\nsystem____________\n";
  const auto at = bytes.find(harmless);
  ASSERT_NE(at, std::string::npos);
  ASSERT_EQ(harmless.size(), harmful.size());
  write_file_atomically(folder / "evil.bin", bytes.replace(at, harmful.size(), harmful));
  EXPECT_THAT([&] { list_torch_archive(folder / "evil.bin"); },
              ThrowsMessage<Error>(AllOf(HasSubstr("posix"), HasSubstr("code is never run"))));
}

// The opcodes of a tensor behind its storage (Q): offset, sizes, strides. Zero and one axis.
TEST(TorchArchive, RefusesTensorsThatReachPastTheirStorage) {
  ScratchFolder folder;
  const auto bytes = read_file(fixture("state_dict.bin"));
  for (const auto& [from, to] : {std::pair{std::string("QK\0))", 5), std::string("QK\1))", 5)},
                                 std::pair{std::string("QK\4K\2\x85", 6), std::string("QK\4K\x9\x85", 6)},
                                 std::pair{std::string("QK\4K\2\x85", 6), std::string("QK\xbK\2\x85", 6)}}) {
    auto changed = bytes;
    ASSERT_NE(changed.find(from), std::string::npos);
    write_unsynced(folder / "changed.bin", changed.replace(changed.find(from), to.size(), to));
    EXPECT_THAT([&] { list_torch_archive(folder / "changed.bin"); },
                ThrowsMessage<Error>(HasSubstr("reaches past its storage")));
  }
}

TEST(TorchArchive, IsReadWhereAFolderHasNoSafetensors) {
  ScratchFolder folder;
  fs::copy(fixture("state_dict.bin"), folder / "pytorch_model.bin");
  EXPECT_EQ(list_model_tensors(folder.path()).size(), 9u);
  fs::rename(folder / "pytorch_model.bin", folder / "pytorch_model-00001-of-00001.bin");
  write_file_atomically(folder / "pytorch_model.bin.index.json",
                        R"({"weight_map": {"plain": "pytorch_model-00001-of-00001.bin"}})");
  EXPECT_EQ(list_model_tensors(folder.path()).size(), 1u);
}

// google-research/t5x, testdata: d_model 8, 4 heads of 3, d_ff 16, gated, untied. Values read with another msgpack
// decoder.
TEST(T5x, ReadsThePublishedTinyCheckpoint) {
  const char* data = std::getenv("SWITCHYARD_DATA");
  const auto path = fs::path(data == nullptr ? "" : data) / "testvectors" / "t5x" / "test_t5_tiny.checkpoint_0.gz";
  if (!fs::exists(path)) GTEST_SKIP() << "SWITCHYARD_DATA names no folder with testvectors/t5x";
  EXPECT_TRUE(is_t5x_checkpoint(path));
  const auto [config, weights] = import_t5x(path, at::kFloat);
  EXPECT_EQ(config.d_model, 8);
  EXPECT_EQ(config.num_heads, 4);
  EXPECT_EQ(config.d_kv, 3);
  EXPECT_EQ(config.d_ff, 16);
  EXPECT_EQ(config.num_encoder_layers, 2);
  EXPECT_EQ(config.num_decoder_layers, 2);
  EXPECT_EQ(config.vocab_size, 32128);
  EXPECT_TRUE(config.gated);
  EXPECT_EQ(config.activation, Activation::kGeluNew);
  EXPECT_FALSE(config.tie_output || config.scale_output);
  EXPECT_FALSE(config.has_sparse_layers());
  // Kernels are [in, out] there: its second value is ours at [1, 0].
  const auto& decoder = weights.decoder.blocks[0];
  EXPECT_FLOAT_EQ(weights.shared[0][1].item<float>(), -0.7845672369003296f);
  EXPECT_FLOAT_EQ(weights.encoder.blocks[0].self_attention.q[1][0].item<float>(), 0.09842095524072647f);
  EXPECT_FLOAT_EQ(weights.encoder.blocks[1].self_attention.o[1][0].item<float>(), -0.10628960281610489f);
  EXPECT_FLOAT_EQ(weights.encoder.blocks[1].feed_forward.wi_0[1][0].item<float>(), 0.2789604663848877f);
  EXPECT_FLOAT_EQ(weights.encoder.blocks[1].feed_forward.wi_1[15][7].item<float>(), 0.23561540246009827f);
  EXPECT_FLOAT_EQ(weights.encoder.relative_attention_bias[1][0].item<float>(), -0.3569941818714142f);
  EXPECT_FLOAT_EQ(weights.decoder.relative_attention_bias[31][3].item<float>(), -0.3939872086048126f);
  EXPECT_FLOAT_EQ(decoder.cross_attention.k[1][0].item<float>(), 0.27666303515434265f);
  EXPECT_FLOAT_EQ(decoder.self_attention.v[11][7].item<float>(), 0.3794417083263397f);
  EXPECT_FLOAT_EQ(decoder.feed_forward.wo[1][0].item<float>(), 0.06107146292924881f);
  EXPECT_FLOAT_EQ(weights.lm_head[1][0].item<float>(), -0.25001105666160583f);
}

// Writes an array as TensorStore does: two chunks along the first axis, the last one padded.
void write_zarr(const fs::path& folder, const at::Tensor& tensor, bool compress) {
  const auto array = tensor.to(at::kFloat).contiguous();
  fs::create_directories(folder);
  std::vector<int64_t> chunks = array.sizes().vec();
  chunks[0] = (chunks[0] + 1) / 2;
  const Json layout = {{"chunks", chunks},
                       {"compressor", compress ? Json{{"id", "gzip"}, {"level", 1}} : Json()},
                       {"dtype", "<f4"},
                       {"fill_value", nullptr},
                       {"filters", nullptr},
                       {"order", "C"},
                       {"shape", array.sizes().vec()},
                       {"zarr_format", 2}};
  write_unsynced(folder / ".zarray", layout.dump());
  const int64_t num_chunks = (array.size(0) + chunks[0] - 1) / chunks[0];
  for (int64_t number = 0; number < num_chunks; ++number) {
    const auto padded = at::zeros(chunks);
    const int64_t begin = number * chunks[0], size = std::min(chunks[0], array.size(0) - begin);
    padded.narrow(0, 0, size).copy_(array.narrow(0, begin, size));
    const std::string bytes(static_cast<const char*>(padded.const_data_ptr()), padded.nbytes());
    std::string name = std::to_string(number);
    for (int64_t axis = 1; axis < array.dim(); ++axis) name += ".0";
    write_unsynced(folder / name, compress ? gzipped(bytes) : bytes);
  }
}

// A sparse model under Flaxformer's names, by the table of published checkpoints.
std::vector<std::pair<std::string, at::Tensor>> flax_arrays(const ModelConfig& config, const ModelWeights& weights) {
  std::vector<std::pair<std::string, at::Tensor>> arrays = {{"token_embedder.embedding", weights.shared}};
  const auto add_stack = [&](const std::string& name, const StackWeights& stack, bool is_decoder) {
    arrays.emplace_back(name + ".relpos_bias.rel_embedding", stack.relative_attention_bias.t());
    arrays.emplace_back(name + "." + name + "_norm.scale", stack.final_norm);
    for (size_t i = 0; i < stack.blocks.size(); ++i) {
      const auto& block = stack.blocks[i];
      const std::string layer = name + ".layers_" + std::to_string(i) + ".";
      const auto add_attention = [&](const std::string& module, const AttentionWeights& attention) {
        arrays.emplace_back(layer + module + ".query.kernel", attention.q.t());
        arrays.emplace_back(layer + module + ".key.kernel", attention.k.t());
        arrays.emplace_back(layer + module + ".value.kernel", attention.v.t());
        arrays.emplace_back(layer + module + ".out.kernel", attention.o.t());
      };
      add_attention(is_decoder ? "self_attention" : "attention", block.self_attention);
      arrays.emplace_back(
          layer + (is_decoder ? "pre_self_attention_layer_norm" : "pre_attention_layer_norm") + ".scale",
          block.self_attention_norm);
      if (is_decoder) {
        add_attention("encoder_decoder_attention", block.cross_attention);
        arrays.emplace_back(layer + "pre_cross_attention_layer_norm.scale", block.cross_attention_norm);
      }
      arrays.emplace_back(layer + "pre_mlp_layer_norm.scale", block.feed_forward_norm);
      const auto& mlp = block.feed_forward;
      const std::string experts = layer + (mlp.is_sparse() ? "mlp.expert." : "mlp.");
      if (mlp.is_sparse()) arrays.emplace_back(layer + "mlp.router.router_weights.w.kernel", mlp.router.weight.t());
      arrays.emplace_back(experts + "wi.kernel", mlp.wi.transpose(-1, -2));
      arrays.emplace_back(experts + "wo.kernel", mlp.wo.transpose(-1, -2));
    }
  };
  add_stack("encoder", weights.encoder, false);
  add_stack("decoder", weights.decoder, true);
  if (!config.tie_output) arrays.emplace_back("decoder.logits_dense.kernel", weights.lm_head.t());
  return arrays;
}

TEST(T5x, ReadsASparseCheckpointInZarrFolders) {
  auto config = preset("switch-tiny-4");
  config.vocab_size = 256;
  config.num_encoder_layers = 3;
  config.tie_output = false;
  const auto weights = initialize(config, 6);
  ScratchFolder folder;
  // What T5X leaves in the msgpack file: a map that only names the arrays, and the step.
  write_file_atomically(folder / "checkpoint", std::string("\x81\xa9optimizer\x81\xa6target\x81\xa1x\xa1y", 24));
  bool compress = false;
  for (const auto& [name, array] : flax_arrays(config, weights))
    write_zarr(folder / ("target." + name), array, compress = !compress);
  write_zarr(folder / "state.param_states.encoder.encoder_norm.scale.v", at::zeros({3}),
             false);  // the optimiser's, left out
  EXPECT_TRUE(is_t5x_checkpoint(folder.path()));
  const auto model = import_t5x(folder.path(), at::kFloat);
  EXPECT_EQ(model.config.sparse_encoder_layers, (std::vector<int64_t>{1}));
  EXPECT_EQ(model.config.routing.num_experts, 4);
  EXPECT_EQ(model.config.num_encoder_layers, 3);
  expect_equal_weights(config, weights, model.weights);

  fs::remove(folder / "target.encoder.layers_1.mlp.expert.wo.kernel/1.0.0");
  EXPECT_THAT([&] { import_t5x(folder.path(), at::kFloat); }, ThrowsMessage<Error>(HasSubstr("1.0.0 is missing")));
}

TEST(T5x, TakesThePresetOfTheSameShape) {
  const auto config = preset("switch-tiny-4");
  const auto weights = initialize(config, 6);
  ScratchFolder folder;
  for (const auto& [name, array] : flax_arrays(config, weights)) write_zarr(folder / ("target." + name), array, true);
  EXPECT_TRUE(is_t5x_checkpoint(folder.path()));
  const auto model = import_t5x(folder.path(), at::kFloat);
  EXPECT_EQ(fields_to_json(model.config), fields_to_json(config));
  expect_equal_weights(config, weights, model.weights);
  // "out", "key" and "value" are components of a path, wherever else their letters stand.
  write_zarr(folder / "target.encoder.outer_keyvalue.scale", at::zeros({4}), false);
  EXPECT_THAT([&] { import_t5x(folder.path(), at::kFloat); },
              ThrowsMessage<Error>(HasSubstr("encoder/outer_keyvalue/scale")));
}

// flax_arrays with the layers of a stack along axis 1 of one array, as T5X's scan_layers keeps them.
std::map<std::string, at::Tensor> scanned(const std::vector<std::pair<std::string, at::Tensor>>& arrays) {
  std::map<std::string, std::map<int64_t, at::Tensor>> layers;
  std::map<std::string, at::Tensor> result;
  for (const auto& [name, array] : arrays) {
    const auto at = name.find(".layers_");
    if (at == std::string::npos) {
      result[name] = array;
      continue;
    }
    const auto end = name.find('.', at + 1);
    const auto stack = name.substr(0, at);
    layers[stack + "." + stack + name.substr(end)][std::stoll(name.substr(at + 8))] = array;
  }
  for (const auto& [name, parts] : layers) {
    std::vector<at::Tensor> list;
    for (const auto& [layer, array] : parts) list.push_back(array);
    result[name] = at::stack(list, 1).contiguous();
  }
  return result;
}

TEST(T5x, ReadsScannedLayers) {
  for (const bool sparse : {false, true}) {
    auto config = preset(sparse ? "switch-tiny-4" : "t5-tiny");
    config.vocab_size = 256;
    config.num_encoder_layers = 3;
    if (sparse) config.encoder_sparse_step = config.decoder_sparse_step = 1;
    const auto weights = initialize(config, 6);
    ScratchFolder folder;
    for (const auto& [name, array] : scanned(flax_arrays(config, weights)))
      write_zarr(folder / ("target." + name), array, true);
    const auto model = import_t5x(folder.path(), at::kFloat);
    EXPECT_EQ(model.config.num_encoder_layers, 3);
    EXPECT_EQ(model.config.num_decoder_layers, 2);
    expect_equal_weights(config, weights, model.weights);
    write_zarr(folder / "target.encoder.encoder.mlp.wo.kernel", at::zeros({4, 2, 4}), false);
    EXPECT_THAT([&] { import_t5x(folder.path(), at::kFloat); }, ThrowsMessage<Error>(HasSubstr("layers")));
  }
}

// A table in every layer, as T5X's scanned models train it: umT5's form.
TEST(T5x, ReadsATableInEveryLayer) {
  auto config = preset("t5-tiny");
  config.vocab_size = 256;
  config.relative_bias_every_layer = true;
  const auto weights = initialize(config, 6);
  ScratchFolder folder;
  auto arrays = scanned(flax_arrays(config, weights));
  for (const auto& [name, stack] : {std::pair{"encoder", &weights.encoder}, std::pair{"decoder", &weights.decoder}}) {
    arrays.erase(std::string(name) + ".relpos_bias.rel_embedding");
    arrays[join(name, ".", name, ".relpos_bias.rel_embedding")] =
        at::stack({stack->relative_attention_bias.t(), stack->blocks[1].relative_attention_bias.t()}, 1).contiguous();
  }
  for (const auto& [name, array] : arrays) write_zarr(folder / ("target." + name), array, true);
  const auto model = import_t5x(folder.path(), at::kFloat);
  EXPECT_TRUE(model.config.relative_bias_every_layer);
  expect_equal_weights(config, weights, model.weights);
}

TEST(T5x, SurvivesDamagedMsgpack) {
  // {"target": {"token_embedder": {"embedding": array [2, 1] of float32}}}
  std::string bytes = std::string(
                          "\x81\xa6target\x81\xaetoken_embedder\x81\xa9"
                          "embedding\xc7\x16\x01\x93\x92\x02\x01\xa7",
                          43) +
                      "float32" + std::string("\xc4\x08\0\0\x80\x3f\0\0\0\x40", 10);
  ScratchFolder folder;
  const auto import = [&](const std::string& content) {
    write_unsynced(folder / "checkpoint", content);
    import_t5x(folder / "checkpoint", at::kFloat);
  };
  EXPECT_THAT([&] { import(bytes); }, ThrowsMessage<Error>(HasSubstr("encoder/relpos_bias/rel_embedding is missing")));
  NoiseStream noise({.seed = 4});
  for (size_t length = 0; length < bytes.size(); ++length)
    EXPECT_THROW(import(bytes.substr(0, length)), Error) << length;
  for (int round = 0; round < 300; ++round) {
    auto damaged = bytes;
    damaged[noise.below(bytes.size())] = static_cast<char>(noise.below(256));
    EXPECT_THROW(import(damaged), Error);
  }
  EXPECT_THROW(import(std::string(100000, '\x91')), Error);  // lists without end
}

}  // namespace
}  // namespace switchyard
