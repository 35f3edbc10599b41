// Files made to harm: small ones that would take much memory or time, and readers that fail where others wait.
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>

#include <fstream>
#include <new>

#include "base/config.h"
#include "base/error.h"
#include "checkpoint/byte_stream.h"
#include "checkpoint/experts_on_demand.h"
#include "checkpoint/msgpack.h"
#include "checkpoint/t5x_scanned.h"
#include "checkpoint/testing.h"
#include "checkpoint/torch_archive.h"
#include "checkpoint/zarr.h"
#include "checkpoint/zip_of.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::ThrowsMessage;

void write(const fs::path& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

NamedTensors read_msgpack(const std::string& text, ByteStream::Form form = ByteStream::Form::kPlain) {
  ByteStream bytes(bytes_of(text), form, "input");
  return read_msgpack_arrays(bytes, "input", [](const std::string&) { return true; });
}

// A float32 array of one value, as Flax writes it.
const std::string kOne =
    std::string("\xc7\x11\x01\x93\x91\x01\xa7", 7) + "float32" + std::string("\xc4\x04\0\0\x80\x3f", 6);

std::string map_of(const std::string& key, const std::string& value) {
  return std::string("\x81\xda", 2) + static_cast<char>(key.size() >> 8) + static_cast<char>(key.size()) + key + value;
}

TEST(HostileMsgpack, NamesAreBoundedInAll) {
  EXPECT_EQ(read_msgpack(map_of("a", map_of("b", kOne))).at("a/b").item<float>(), 1.f);
  EXPECT_EQ(read_msgpack(map_of(std::string(500, 'a'), map_of(std::string(500, 'b'), kOne))).size(), 1u);
  // Every array keeps its name: under a name of 250 kB, a megabyte of small arrays made nine gigabytes.
  EXPECT_THAT([] { read_msgpack(map_of(std::string(600, 'a'), map_of(std::string(600, 'b'), kOne))); },
              ThrowsMessage<Error>(HasSubstr("keys of nested maps are too long")));
  EXPECT_THAT([] { read_msgpack(map_of(std::string(4000, 'a'), kOne)); },
              ThrowsMessage<Error>(HasSubstr("a key is too long")));
}

TEST(HostileMsgpack, ACompressedFileIsNotUncompressedWhole) {
  const std::string good = map_of("a", kOne);
  EXPECT_EQ(read_msgpack(gzipped(good), ByteStream::Form::kDeflated).size(), 1u);
  // The end is missing, and is never looked for: the first byte, a number, is all that a map should have been.
  const std::string zeros = gzipped(std::string(1 << 22, '\0'));
  EXPECT_THAT([&] { read_msgpack(zeros.substr(0, zeros.size() - 20), ByteStream::Form::kDeflated); },
              ThrowsMessage<Error>(HasSubstr("bytes follow the end")));
  // An array of 4 GB, announced in a file that can not uncompress to it.
  const std::string announced = map_of("a", std::string("\xc9\xff\xff\xff\xff\x01", 6) + kOne);
  EXPECT_THAT([&] { read_msgpack(gzipped(announced), ByteStream::Form::kDeflated); },
              ThrowsMessage<Error>(HasSubstr("larger than the rest of the file")));
}

// Each layer of a scanned array becomes an array with a name of its own, of two bytes here, or of compressed zeros.
TEST(HostileT5x, ScannedLayersAreBounded) {
  NamedTensors arrays;
  for (int n = 0; n < 17; ++n) arrays[join("encoder/encoder/", n)] = at::zeros({1, 4096}, at::kHalf);
  EXPECT_THAT([&] { unstack_scanned_layers(arrays, "input"); }, ThrowsMessage<Error>(HasSubstr("more than 65536")));
}

struct ZarrLayout {
  std::vector<int64_t> shape, chunks;
  bool compressed = false;
};

void write_layout(const fs::path& folder, const ZarrLayout& layout) {
  write(folder / ".zarray", Json{{"shape", layout.shape},
                                 {"chunks", layout.chunks},
                                 {"dtype", "<f4"},
                                 {"order", "C"},
                                 {"compressor", layout.compressed ? Json{{"id", "gzip"}} : Json()}}
                                .dump());
}

TEST(HostileZarr, AChunkIsBoundedByItsArray) {
  ScratchFolder folder;
  const std::string eight(8 * sizeof(float), '\0');
  write(folder / "0", eight);
  write_layout(folder.path(), {.shape = {3}, .chunks = {8}});
  EXPECT_EQ(read_zarr(folder.path()).numel(), 3);
  write_layout(folder.path(), {.shape = {3}, .chunks = {int64_t{1} << 30}, .compressed = true});
  EXPECT_THAT([&] { read_zarr(folder.path()); },
              ThrowsMessage<Error>(HasSubstr("a chunk has 1073741824 elements, the whole array 3")));
}

TEST(HostileZarr, CompressedChunksAreBoundedByTheirShape) {
  ScratchFolder folder;
  write_layout(folder.path(), {.shape = {8}, .chunks = {8}, .compressed = true});
  write(folder / "0", gzipped(std::string(8 * sizeof(float), '\0')));
  EXPECT_EQ(read_zarr(folder.path()).numel(), 8);
  write(folder / "0", gzipped(std::string(1 << 24, '\0')));
  EXPECT_THAT([&] { read_zarr(folder.path()); }, ThrowsMessage<Error>(HasSubstr("more than the 32 bytes of a chunk")));
  // Eight gigabytes, announced by a file of sixteen kilobytes.
  write_layout(folder.path(), {.shape = {int64_t{1} << 31}, .chunks = {int64_t{1} << 31}, .compressed = true});
  EXPECT_THAT([&] { read_zarr(folder.path()); },
              ThrowsMessage<Error>(HasSubstr("bytes of compressed data, a chunk has 8589934592")));
}

// A pickle that rebuilds a tensor of `num_axes` ones from remembered arguments `count` times, and makes a state dict of
// `names`, all of which name the last.
std::string pickle_of(int num_axes, int count, const std::vector<std::string>& names) {
  const auto text = [](const std::string& word) {
    return std::string("X") + static_cast<char>(word.size()) + std::string(3, '\0') + word;
  };
  std::string pickle("\x80\x02", 2);
  pickle += "ctorch._utils\n_rebuild_tensor_v2\nq" + std::string(1, '\0');
  pickle +=
      "((" + text("storage") + "ctorch\nFloatStorage\n" + text("0") + text("cpu") + "K\x01tQK" + std::string(1, '\0');
  for (int tuple = 0; tuple < 2; ++tuple) {
    pickle += "(";
    for (int axis = 0; axis < num_axes; ++axis) pickle += "K\x01";
    pickle += "t";
  }
  pickle += "tq\x01R";
  for (int n = 0; n < count; ++n) pickle += std::string("h\0h\x01R", 5);
  pickle += "q\x02}(";
  for (const auto& name : names) pickle += text(name) + "h\x02";
  return pickle + "u.";
}

TEST(HostilePickle, RememberedArgumentsAreBounded) {
  ScratchFolder folder;
  const auto list = [&](const std::string& pickle) {
    write(folder / "model.bin", zip_of({{"archive/data.pkl", pickle}, {"archive/data/0", std::string(4, '\0')}}));
    return list_torch_archive(folder / "model.bin");
  };
  EXPECT_EQ(list(pickle_of(2, 3, {"a", "b"})).size(), 2u);
  // Five bytes a tensor: each kept sixty-four sizes and strides.
  EXPECT_THAT([&] { list(pickle_of(64, 1, {"a"})); }, ThrowsMessage<Error>(HasSubstr("too many axes")));
  EXPECT_THAT([&] { list(pickle_of(1, 300'000, {"a"})); }, ThrowsMessage<Error>(HasSubstr("more than 262144 tensors")));
  EXPECT_THAT([&] { list(pickle_of(1, 1, {"a", "a"})); }, ThrowsMessage<Error>(HasSubstr("\"a\" stands twice")));
  EXPECT_THAT([&] { list(std::string(5'000'000, 'N') + "."); },
              ThrowsMessage<Error>(HasSubstr("more than 4194304 values")));
}

// Memory that is refused on a thread of a parallel region is an exception of the one that waits for it.
TEST(HostileFiles, RefusedMemoryInAParallelRegionIsCarriedOut) {
  const StoredTensor refused{at::kFloat, {4}, [](int64_t, const at::Tensor&) { throw std::bad_alloc(); }};
  ExpertsOnDemand experts;
  const auto layer = experts.add_layer("encoder.1", 8);
  experts.add(layer, std::vector<const StoredTensor*>(8, &refused), at::kFloat);
  EXPECT_THROW(experts.for_each_run(layer, std::vector<int64_t>(8, 1), [](Slice) {}), std::bad_alloc);
}

}  // namespace
}  // namespace switchyard
