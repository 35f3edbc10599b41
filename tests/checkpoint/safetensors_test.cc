#include "checkpoint/safetensors.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <sstream>

#include "base/error.h"
#include "base/files.h"
#include "base/random.h"
#include "checkpoint/testing.h"

namespace switchyard {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

std::span<const std::byte> as_bytes(const std::string& text) { return std::as_bytes(std::span(text)); }

std::string with_header(const std::string& header, const std::string& data = "") {
  std::string file(8, '\0');
  const uint64_t length = header.size();
  std::memcpy(file.data(), &length, sizeof(length));
  return file + header + data;
}

// Every file of the published cases, and what it must give.
TEST(Safetensors, ReadsAndRefusesThePublishedCases) {
  const char* data = std::getenv("SWITCHYARD_DATA");
  const auto folder = std::filesystem::path(data == nullptr ? "" : data) / "testvectors" / "safetensors";
  if (!std::filesystem::exists(folder / "expected.tsv"))
    GTEST_SKIP() << "SWITCHYARD_DATA names no folder with testvectors/safetensors";
  std::ifstream table(folder / "expected.tsv");
  std::string line, name, outcome;
  std::getline(table, line);
  int count = 0;
  while (std::getline(table, line)) {
    std::istringstream fields(line);
    fields >> name >> outcome;
    if (outcome == "ok")
      EXPECT_NO_THROW(read_safetensors(folder / name)) << name;
    else
      EXPECT_THROW(read_safetensors(folder / name), Error) << name;
    ++count;
  }
  EXPECT_EQ(count, 30);

  const auto read = [&](const char* file) {
    return read_safetensors(folder / (std::string(file) + ".safetensors")).tensors;
  };
  EXPECT_TRUE(read("ok_empty_dict").empty());
  EXPECT_EQ(read("ok_scalar_i32").begin()->second.dim(), 0);
  EXPECT_TRUE(at::equal(read("ok_2x2_i32").begin()->second, at::tensor({1, -2, 3, 2147483647}, at::kInt).view({2, 2})));
  EXPECT_EQ(read("ok_zero_dim").begin()->second.numel(), 0);
  EXPECT_TRUE(at::equal(read("ok_trailing_spaces").begin()->second.flatten(), at::tensor({1.5f, -0.25f})));
  EXPECT_FALSE(read_safetensors(folder / "ok_metadata.safetensors").metadata.empty());
  const auto order = read("ok_header_order_differs");
  EXPECT_EQ(order.at("a").item().toDouble(), 10);
  EXPECT_EQ(order.at("b").item().toDouble(), 20);
  EXPECT_EQ(read("ok_unicode_names").begin()->first, "encoder/\u5c42_0/w\u00ef");

  std::map<at::ScalarType, at::Tensor> mixed;
  for (const auto& [key, tensor] : read("ok_mixed_dtypes")) mixed[tensor.scalar_type()] = tensor.flatten();
  EXPECT_TRUE(at::equal(mixed.at(at::kDouble), at::tensor({1e300}, at::kDouble)));
  EXPECT_EQ(mixed.at(at::kLong)[0].item<int64_t>(), std::numeric_limits<int64_t>::min());
  EXPECT_TRUE(std::isnan(mixed.at(at::kFloat)[0].item<float>()));
  EXPECT_EQ(mixed.at(at::kFloat)[1].item<float>(), INFINITY);
  EXPECT_TRUE(at::equal(mixed.at(at::kHalf), at::tensor({0.5, -65504.0}).to(at::kHalf)));
  EXPECT_TRUE(at::equal(mixed.at(at::kBFloat16), at::tensor({1.0, -3.140625}).to(at::kBFloat16)));
  EXPECT_TRUE(at::equal(mixed.at(at::kShort), at::tensor({-32768}, at::kShort)));
  EXPECT_TRUE(at::equal(mixed.at(at::kChar), at::tensor({-128, 127}, at::kChar)));
  EXPECT_TRUE(at::equal(mixed.at(at::kByte), at::tensor({0, 255}, at::kByte)));
  EXPECT_TRUE(at::equal(mixed.at(at::kBool), at::tensor({1, 0, 1}).to(at::kBool)));
}

std::vector<TensorToWrite> sample_tensors() {
  std::vector<TensorToWrite> tensors;
  NoiseStream noise({.seed = 5});
  for (const auto& [name, dtype] : kSafetensorsDtypes) {
    for (const auto& shape : std::vector<std::vector<int64_t>>{{}, {3}, {2, 0, 4}, {5, 7}}) {
      auto tensor = at::empty(shape, at::TensorOptions().dtype(dtype));
      auto* bytes = static_cast<unsigned char*>(tensor.mutable_data_ptr());
      for (size_t i = 0; i < tensor.nbytes(); ++i)
        bytes[i] = static_cast<unsigned char>(noise.below(dtype == at::kBool ? 2 : 256));
      tensors.push_back({join(name, ".", tensors.size()), tensor, dtype});
    }
  }
  return tensors;
}

TEST(Safetensors, RoundTripKeepsEveryBitOfEveryType) {
  ScratchFolder folder;
  const auto tensors = sample_tensors();
  write_safetensors(folder / "a.safetensors", tensors, {{"format", "pt"}, {"note", "\"quoted\" line\nbreak"}});
  const auto file = read_safetensors(folder / "a.safetensors");
  EXPECT_EQ(file.metadata.at("note"), "\"quoted\" line\nbreak");
  ASSERT_EQ(file.tensors.size(), tensors.size());
  for (const auto& [name, tensor, dtype, later] : tensors) {
    const auto& read = file.tensors.at(name);
    EXPECT_EQ(read.scalar_type(), dtype) << name;
    ASSERT_EQ(read.sizes(), tensor.sizes()) << name;
    // Random bytes are also NaNs with payloads, which no comparison of values would see.
    if (tensor.numel() == 0) continue;
    EXPECT_EQ(std::memcmp(read.const_data_ptr(), tensor.const_data_ptr(), tensor.nbytes()), 0) << name;
  }
}

TEST(Safetensors, TheSameTensorsInAnyOrderGiveTheSameFileAlignedToEight) {
  ScratchFolder folder;
  auto tensors = sample_tensors();
  write_safetensors(folder / "a.safetensors", tensors);
  std::reverse(tensors.begin(), tensors.end());
  write_safetensors(folder / "b.safetensors", tensors);
  const auto bytes = read_file(folder / "a.safetensors");
  EXPECT_EQ(bytes, read_file(folder / "b.safetensors"));
  const auto header = parse_safetensors(as_bytes(bytes), "a");
  EXPECT_EQ(header.data_offset % 8, 0u);
  for (const auto& entry : header.entries) EXPECT_EQ(entry.begin % c10::elementSize(entry.dtype), 0u) << entry.name;
}

// The bytes that the reference implementation (safetensors 0.8.0, save({"b": ..., "a": ...}, {"format": "pt"})) writes.
TEST(Safetensors, WritesTheReferenceImplementationsBytes) {
  ScratchFolder folder;
  write_safetensors(folder / "a.safetensors", {{"b", at::tensor({1.0f, 2.0f}), at::kFloat},
                                               {"a", at::tensor({7, 8}, at::kByte), at::kByte},
                                               {"c", at::tensor({-1}, at::kLong), at::kLong}});
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"c":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},)"
      R"("b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]},"a":{"dtype":"U8","shape":[2],"data_offsets":[16,18]}})";
  const std::string data("\xff\xff\xff\xff\xff\xff\xff\xff\0\0\x80\x3f\0\0\0\x40\x07\x08", 18);
  EXPECT_EQ(read_file(folder / "a.safetensors"),
            with_header(header + std::string((8 - header.size() % 8) % 8, ' '), data));
}

TEST(Safetensors, ConvertsWhileWriting) {
  ScratchFolder folder;
  const auto wide = at::tensor({1.0f, 3.14159f, -65505.0f, 1e-3f}).view({2, 2}).t();  // not contiguous
  write_safetensors(folder / "a.safetensors", {{"x", wide, at::kBFloat16}});
  EXPECT_TRUE(at::equal(read_safetensors(folder / "a.safetensors").tensors.at("x"), wide.to(at::kBFloat16)));
}

TEST(Safetensors, ViewsOutliveTheFileAndItsName) {
  ScratchFolder folder;
  write_safetensors(folder / "a.safetensors", {{"x", at::tensor({1.0f, 2.0f}), at::kFloat}});
  at::Tensor view = read_safetensors(folder / "a.safetensors").tensors.at("x");
  std::filesystem::remove(folder / "a.safetensors");
  EXPECT_EQ(view[1].item<float>(), 2.0f);
}

TEST(Safetensors, ReadsTensorsThatAreNotAligned) {
  const std::string header =
      R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F64","shape":[1],"data_offsets":[1,9]}})";
  std::string data(9, '\7');
  const double value = -2.5;
  std::memcpy(data.data() + 1, &value, sizeof(value));
  ScratchFolder folder;
  write_file_atomically(folder / "a.safetensors", with_header(header, data));
  EXPECT_EQ(read_safetensors(folder / "a.safetensors").tensors.at("b").item<double>(), value);
}

TEST(Safetensors, RefusesAFileTruncatedAtAnyByte) {
  ScratchFolder folder;
  write_safetensors(folder / "a.safetensors", sample_tensors());
  const auto bytes = read_file(folder / "a.safetensors");
  EXPECT_NO_THROW(parse_safetensors(as_bytes(bytes), "a"));
  for (size_t length = 0; length < bytes.size(); ++length)
    EXPECT_THROW(parse_safetensors(as_bytes(bytes).first(length), "a"), Error) << length << " bytes kept";
}

TEST(Safetensors, SurvivesDamageAnywhere) {
  ScratchFolder folder;
  write_safetensors(folder / "a.safetensors", sample_tensors());
  const auto bytes = read_file(folder / "a.safetensors");
  const size_t header_size = parse_safetensors(as_bytes(bytes), "a").data_offset;
  NoiseStream noise({.seed = 11});
  int refused = 0;
  for (int round = 0; round < 3000; ++round) {
    auto damaged = bytes;
    for (uint64_t change = 0; change <= noise.below(3); ++change)
      damaged[noise.below(header_size)] =
          noise.below(2) == 0 ? static_cast<char>(noise.below(256)) : "0123456789,:[]{}\""[noise.below(17)];
    try {
      const auto header = parse_safetensors(as_bytes(damaged), "damaged");
      // Whatever is accepted must lie within the file.
      for (const auto& entry : header.entries) ASSERT_LE(header.data_offset + entry.end, damaged.size());
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 1000);
}

struct BadHeader {
  const char* name;
  const char* header;
  size_t data_bytes;
  const char* message;
};
void PrintTo(const BadHeader& bad, std::ostream* out) { *out << bad.name; }

class SafetensorsHeaderText : public testing::TestWithParam<BadHeader> {};

TEST_P(SafetensorsHeaderText, IsRefusedByName) {
  const auto& bad = GetParam();
  const auto file = with_header(bad.header, std::string(bad.data_bytes, '\0'));
  EXPECT_THAT([&] { parse_safetensors(as_bytes(file), "x.safetensors"); },
              ThrowsMessage<Error>(HasSubstr(bad.message)));
}

INSTANTIATE_TEST_SUITE_P(
    Cases, SafetensorsHeaderText,
    testing::Values(
        BadHeader{
            "twice",
            R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
            2, "\"a\" stands twice"},
        BadHeader{"gap", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", 2, "gap"},
        BadHeader{
            "overlap",
            R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
            3, "overlaps"},
        BadHeader{"strides", R"({"a":{"dtype":"F64","shape":[0,4611686018427387904,4],"data_offsets":[0,0]}})", 0,
                  "overflows"},
        BadHeader{"bytes", R"({"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}})", 0,
                  "overflows"},
        BadHeader{"negative", R"({"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})", 1, "negative"},
        BadHeader{"fraction", R"({"a":{"dtype":"U8","shape":[1.5],"data_offsets":[0,1]}})", 1, "fraction"},
        BadHeader{"huge_number", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,18446744073709551616]}})", 1,
                  "out of range"},
        BadHeader{"three_offsets", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,1]}})", 1, "more than 2"},
        BadHeader{"dtype", R"({"a":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}})", 1, "F8_E4M3"},
        BadHeader{"missing_shape", R"({"a":{"dtype":"U8","data_offsets":[0,1]}})", 1, "is missing"},
        BadHeader{"unknown_entry", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1}})", 1,
                  "unknown entry \"x\""},
        BadHeader{"metadata", R"({"__metadata__":{"a":1}})", 0, "expected strings only"},
        BadHeader{"nested", R"({"a":[[1]]})", 0, "tensor \"a\""},
        BadHeader{"no_object", R"([1])", 0, "does not begin with '{'"},
        BadHeader{"open", R"({"a":)", 0, "not valid JSON"}, BadHeader{"owner", "{}", 1, "no tensor owns"},
        BadHeader{"short", R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", 1, "cut short"}),
    [](const auto& given) { return given.param.name; });

TEST(Safetensors, RefusesBooleansThatAreNone) {
  ScratchFolder folder;
  write_file_atomically(folder / "a.safetensors",
                        with_header(R"({"a":{"dtype":"BOOL","shape":[1],"data_offsets":[0,1]}})", "\2"));
  EXPECT_THAT([&] { read_safetensors(folder / "a.safetensors"); },
              ThrowsMessage<Error>(HasSubstr("bytes other than 0 and 1")));
}

TEST(Safetensors, RefusesToWriteANameTwice) {
  ScratchFolder folder;
  const auto x = at::zeros({1});
  EXPECT_THROW(write_safetensors(folder / "a.safetensors", {{"x", x, at::kFloat}, {"x", x, at::kFloat}}), Error);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

}  // namespace
}  // namespace switchyard
