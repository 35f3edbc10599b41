// GGUF files that are damaged or lie, and values of quantised blocks worked out by hand. What llama.cpp's own package
// reads and writes is compared in tests/python/test_gguf.py.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "base/error.h"
#include "checkpoint/gguf_blocks.h"
#include "checkpoint/gguf_header.h"
#include "checkpoint/gguf_model.h"
#include "checkpoint/gguf_names.h"
#include "checkpoint/gguf_writer.h"
#include "model/parameters.h"
#include "testing/scratch_folder.h"

namespace switchyard {
namespace {

using testing::HasSubstr;

template <class T>
std::string raw(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}
std::string text(const std::string& value) { return raw(uint64_t{value.size()}) + value; }

// A file of pairs and tensors, put together by hand.
struct Parts {
  uint32_t version = 3;
  uint64_t num_tensors = 0, num_pairs = 0;
  std::string pairs = {}, tensors = {};
  uint64_t data_bytes = 0;

  Parts& pair(const std::string& key, uint32_t type, const std::string& value) {
    pairs += text(key) + raw(type) + value;
    ++num_pairs;
    return *this;
  }
  Parts& tensor(const std::string& name, const std::vector<uint64_t>& dimensions, uint32_t type, uint64_t offset) {
    tensors += text(name) + raw(static_cast<uint32_t>(dimensions.size()));
    for (const uint64_t size : dimensions) tensors += raw(size);
    tensors += raw(type) + raw(offset);
    ++num_tensors;
    return *this;
  }
  std::string bytes() const {
    std::string out = "GGUF" + raw(version) + raw(num_tensors) + raw(num_pairs) + pairs + tensors;
    out.append(gguf_padding(out.size()), '\0');
    return out + std::string(data_bytes, '\1');
  }
};

class Gguf : public testing::Test {
 protected:
  GgufHeader read(const std::string& bytes) const {
    const auto path = folder_.path() / "x.gguf";
    write_file_atomically(path, bytes);
    return read_gguf_header(InputFile(path), "x.gguf");
  }
  std::string refusal(const std::string& bytes) const {
    try {
      read(bytes);
    } catch (const Error& error) {
      return error.what();
    }
    return "taken";
  }
  std::string refusal(const Parts& parts) const { return refusal(parts.bytes()); }

  test::ScratchFolder folder_;
};

TEST_F(Gguf, ReadsKeysOfEveryTypeAndTensorsInRowMajorOrder) {
  Parts parts{.data_bytes = 96};
  parts.pair("u8", 0, raw(uint8_t{200})).pair("i16", 3, raw(int16_t{-5})).pair("f64", 12, raw(0.25));
  parts.pair("truth", 7, raw(uint8_t{1})).pair("words", 8, text("a text"));
  parts.pair("list", 9, raw(uint32_t{8}) + raw(uint64_t{2}) + text("x") + text("yz"));
  parts.pair("numbers", 9, raw(uint32_t{5}) + raw(uint64_t{2}) + raw(int32_t{-1}) + raw(int32_t{7}));
  parts.tensor("b", {32, 1}, 8, 32).tensor("a", {2, 3}, 0, 0);  // 34 bytes; 24 bytes
  const auto header = read(parts.bytes());
  EXPECT_EQ(header.integer("u8", "", 0), 200);
  EXPECT_EQ(header.integer("i16", "", 0), -5);
  EXPECT_EQ(header.integer("truth", "", 0), 1);
  EXPECT_EQ(header.integer("absent", "", 9), 9);
  EXPECT_EQ(header.number("f64", "", 0), 0.25);
  EXPECT_EQ(header.text("words", ""), "a text");
  EXPECT_EQ(std::get<std::vector<std::string>>(header.values.at("list")), (std::vector<std::string>{"x", "yz"}));
  EXPECT_EQ(std::get<std::vector<int64_t>>(header.values.at("numbers")), (std::vector<int64_t>{-1, 7}));
  ASSERT_EQ(header.tensors.size(), 2U);
  EXPECT_EQ(header.tensors[0].name, "a");
  EXPECT_EQ(header.tensors[0].shape, (std::vector<int64_t>{3, 2}));
  EXPECT_EQ(header.tensors[1].bytes, 34U);
  EXPECT_EQ(header.tensors[1].offset - header.tensors[0].offset, 32U);
  EXPECT_THROW(header.integer("words", "x.gguf", 0), Error);
}

TEST_F(Gguf, RefusesWhatLies) {
  constexpr uint64_t kHuge = uint64_t{1} << 62;
  const std::pair<Parts, const char*> cases[] = {
      {Parts{.version = 4}, "GGUF version 4, expected 2 or 3"},
      {Parts{.version = 3U << 24}, "big-endian"},
      {Parts{.num_tensors = kHuge}, "tensors announced"},
      {Parts{.num_pairs = kHuge}, "keys announced"},
      {Parts{}.pair("k", 13, ""), "k has type 13"},
      {Parts{}.pair("k", 7, raw(uint8_t{2})), "a truth value is 2"},
      {Parts{}.pair("k", 10, raw(~uint64_t{0})), "out of range"},
      {Parts{}.pair("k", 8, raw(kHuge)), "bytes long, but the file has"},
      {Parts{}.pair("k", 9, raw(uint32_t{0}) + raw(kHuge)), "a list of 4611686018427387904 values"},
      {Parts{}.pair("k", 9, raw(uint32_t{9}) + raw(uint64_t{1})), "lists of lists"},
      {Parts{}.pair("k", 0, raw(uint8_t{1})).pair("k", 0, raw(uint8_t{1})), "k stands twice"},
      {Parts{}.pair("general.alignment", 4, raw(uint32_t{24})), "expected a power of two"},
      {Parts{.data_bytes = 64}.tensor("t", {kHuge, 8}, 0, 0), "dimension 4611686018427387904 is out of range"},
      {Parts{.data_bytes = 64}.tensor("t", {2, uint64_t{1} << 63}, 0, 0),
       "dimension 9223372036854775808 is out of range"},
      {Parts{.data_bytes = 64}.tensor("t", {0}, 0, 0), "dimension 0 is out of range"},
      {Parts{.data_bytes = 64}.tensor("t", {1, 1, 1, 1, 1}, 0, 0), "has 5 dimensions"},
      {Parts{.data_bytes = 64}.tensor("t", {16}, 10, 0), "of ggml's type 10; expected F32"},
      {Parts{.data_bytes = 64}.tensor("t", {16}, 8, 0), "Q8_0 has blocks of 32"},
      {Parts{.data_bytes = 64}.tensor("t", {17}, 0, 0), "68 bytes from byte 0 of the data, but that has 64"},
      {Parts{.data_bytes = 64}.tensor("t", {1}, 0, ~uint64_t{31}), "cut short"},
      {Parts{.data_bytes = 64}.tensor("t", {1}, 0, 4), "expected a multiple of 32"},
      {Parts{.data_bytes = 64}.tensor("t", {16}, 0, 0).tensor("u", {1}, 0, 32), "\"t\" and \"u\" overlap"},
      {Parts{.data_bytes = 64}.tensor("t", {1}, 0, 0).tensor("t", {1}, 0, 32), "\"t\" stands twice"},
  };
  for (const auto& [parts, message] : cases) EXPECT_THAT(refusal(parts), HasSubstr(message));
  EXPECT_THAT(refusal("GGML" + std::string(40, '\0')), HasSubstr("not a GGUF file"));
}

// A file with a model in it, a kilobyte or two of head.
std::string small_model(const std::filesystem::path& path) {
  ModelConfig config;
  config.vocab_size = 16;
  config.d_model = config.d_ff = 32;
  config.d_kv = 4;
  config.num_heads = 2;
  config.num_encoder_layers = config.num_decoder_layers = 1;
  config.routing.num_experts = 0;
  const LoadedModel model{config, initialize(config, /*seed=*/3)};
  write_gguf(path, config, parameter_values(model), at::kFloat,
             {.tokens = {"<pad>", "</s>", "<unk>"}, .scores = {0, 0, 0}, .types = {3, 3, 2}});
  return read_file(path);
}

TEST_F(Gguf, RefusesAFileCutAtAnyByte) {
  const auto path = folder_.path() / "model.gguf";
  const auto bytes = small_model(path);
  EXPECT_EQ(open_gguf(path).files.config.d_model, 32);
  const auto cut = folder_.path() / "cut.gguf";
  for (size_t length = 0; length < bytes.size(); length += length < 4096 ? 1 : 97) {
    std::ofstream(cut, std::ios::binary | std::ios::trunc) << bytes.substr(0, length);
    EXPECT_THROW(open_gguf(cut), Error) << length << " bytes kept";
  }
}

TEST_F(Gguf, WritesWhatItReads) {
  const auto path = folder_.path() / "model.gguf";
  small_model(path);
  const auto model = open_gguf(path);
  EXPECT_EQ(model.vocabulary.tokens, (std::vector<std::string>{"<pad>", "</s>", "<unk>"}));
  const auto again = folder_.path() / "again.gguf";
  write_gguf(again, model.files.config, parameter_values(model.files), at::kFloat, model.vocabulary);
  EXPECT_EQ(read_file(again), read_file(path));
}

TEST(GgufBlocks, ValuesWorkedOutByHand) {
  const std::string half_one = raw(uint16_t{0x3C00}), half_two = raw(uint16_t{0x4000});
  std::vector<float> values(256);
  // Q8_0: 2 * (-3, 0, ..., 0, 5).
  std::string block = half_two + std::string(32, '\0');
  block[2] = static_cast<char>(-3);
  block[33] = 5;
  dequantise_blocks(GgufType::kQ8_0, reinterpret_cast<const uint8_t*>(block.data()), 1, values.data());
  EXPECT_EQ(values[0], -6.0F);
  EXPECT_EQ(values[1], 0.0F);
  EXPECT_EQ(values[31], 10.0F);
  // Q4_0: nibbles 1 and 15 of the first byte are values 0 and 16, less 8.
  block = half_two + std::string(16, '\x88');
  block[2] = static_cast<char>(0xF1);
  dequantise_blocks(GgufType::kQ4_0, reinterpret_cast<const uint8_t*>(block.data()), 1, values.data());
  EXPECT_EQ(values[0], -14.0F);
  EXPECT_EQ(values[16], 14.0F);
  EXPECT_EQ(values[1], 0.0F);
  // Q4_K: group 0 has scale 3 and minimum 2, group 7 scale 0x25 and minimum 0x1A; d 1, dmin 2.
  std::string scales(12, '\0');
  scales[0] = 3;
  scales[4] = 2;
  scales[3] = static_cast<char>(0x2 << 6);         // high bits of scale 7
  scales[7] = static_cast<char>(0x1 << 6);         // and of its minimum
  scales[11] = static_cast<char>(0xA << 4 | 0x5);  // low halves
  block = half_one + half_two + scales + std::string(128, '\x21');
  dequantise_blocks(GgufType::kQ4_K, reinterpret_cast<const uint8_t*>(block.data()), 1, values.data());
  EXPECT_EQ(values[0], 3.0F * 1 - 2.0F * 2);
  EXPECT_EQ(values[255], 37.0F * 2 - 2.0F * 26);
  EXPECT_EQ(values[40], 0.0F);
}

TEST(GgufNames, AreLlamaCpps) {
  const std::pair<const char*, const char*> cases[] = {
      {"shared.weight", "token_embd.weight"},
      {"encoder.block.11.layer.0.SelfAttention.o.weight", "enc.blk.11.attn_o.weight"},
      {"decoder.block.2.layer.1.layer_norm.weight", "dec.blk.2.cross_attn_norm.weight"},
      {"encoder.block.2.layer.1.layer_norm.weight", "enc.blk.2.ffn_norm.weight"},
      {"decoder.block.2.layer.2.DenseReluDense.wi_0.weight", "dec.blk.2.ffn_gate.weight"},
      {"decoder.block.1.layer.2.mlp.experts.wo.weight", "dec.blk.1.ffn_down_exps.weight"},
      {"encoder.block.1.layer.1.mlp.router.classifier.weight", "enc.blk.1.ffn_gate_inp.weight"},
      {"encoder.block.1.layer.0.SelfAttention.experts.q.weight", ""},
      {"encoder.embed_tokens.weight", ""},
  };
  for (const auto& [parameter, name] : cases) EXPECT_EQ(gguf_name(parameter), name) << parameter;
}

}  // namespace
}  // namespace switchyard
