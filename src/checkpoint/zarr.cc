#include "checkpoint/zarr.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "base/config.h"
#include "base/error.h"
#include "base/files.h"
#include "checkpoint/byte_stream.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxChunkElements = int64_t{1} << 31;
constexpr int64_t kSmallChunk = int64_t{1} << 16;  // elements; a chunk may be larger than its array up to here

struct Layout {
  std::vector<int64_t> shape, chunks;
  at::ScalarType dtype = at::kFloat;
  bool compressed = false;
  std::string separator = ".";
};

Layout read_layout(const fs::path& path) {
  const auto source = path.string();
  const Json json = parse_json(read_file(path, 1 << 20), source);
  const auto field = [&](const char* name) -> const Json& {
    SY_CHECK(json.is_object() && json.contains(name), source, ": \"", name, "\" is missing");
    return json.at(name);
  };
  Layout layout;
  config_detail::read_value(field("shape"), source + ": shape", layout.shape);
  config_detail::read_value(field("chunks"), source + ": chunks", layout.chunks);
  SY_CHECK(layout.shape.size() == layout.chunks.size() && layout.shape.size() <= 8, source,
           ": shape and chunks do not fit");
  int64_t chunk = 1, numel = 1;
  for (size_t axis = 0; axis < layout.shape.size(); ++axis) {
    SY_CHECK(layout.shape[axis] >= 1 && layout.chunks[axis] >= 1 &&
                 !__builtin_mul_overflow(chunk, layout.chunks[axis], &chunk) && chunk <= kMaxChunkElements &&
                 !__builtin_mul_overflow(numel, layout.shape[axis], &numel) && numel < int64_t{1} << 48,
             source, ": shape or chunks are out of range");
  }
  // A writer may give a small array large chunks; the memory for one is bounded by the array all the same.
  SY_CHECK(chunk <= std::max(numel, kSmallChunk), source, ": a chunk has ", chunk, " elements, the whole array ",
           numel);
  const std::string dtype = field("dtype").is_string() ? field("dtype").get<std::string>() : "";
  const std::pair<const char*, at::ScalarType> types[] = {
      {"<f4", at::kFloat}, {"<f8", at::kDouble}, {"<f2", at::kHalf}, {"bfloat16", at::kBFloat16}};
  const auto* found =
      std::find_if(std::begin(types), std::end(types), [&](const auto& each) { return dtype == each.first; });
  SY_CHECK(found != std::end(types), source, ": dtype \"", dtype.substr(0, 40),
           "\", expected <f4, <f8, <f2 or bfloat16");
  layout.dtype = found->second;
  SY_CHECK(field("order") == "C", source, ": only C order is supported");
  SY_CHECK(!json.contains("filters") || json.at("filters").is_null(), source, ": filters are not supported");
  const Json& compressor = field("compressor");
  if (compressor.is_object()) {
    const bool known = compressor.contains("id") && (compressor.at("id") == "gzip" || compressor.at("id") == "zlib");
    SY_CHECK(known, source, ": compressor ", compressor.dump().substr(0, 80), ", expected gzip, zlib or none");
    layout.compressed = true;
  }
  if (json.contains("dimension_separator")) layout.separator = json.at("dimension_separator") == "/" ? "/" : ".";
  return layout;
}

}  // namespace

at::Tensor read_zarr(const fs::path& folder) {
  const Layout layout = read_layout(folder / ".zarray");
  const size_t rank = layout.shape.size();
  std::vector<int64_t> counts(rank);
  int64_t num_chunks = 1, chunk_elements = 1;
  for (size_t axis = 0; axis < rank; ++axis) {
    counts[axis] = (layout.shape[axis] + layout.chunks[axis] - 1) / layout.chunks[axis];
    num_chunks *= counts[axis];
    chunk_elements *= layout.chunks[axis];
  }
  const auto options = at::TensorOptions().dtype(layout.dtype);
  const uint64_t chunk_bytes = static_cast<uint64_t>(chunk_elements) * c10::elementSize(layout.dtype);
  const auto path_of = [&](int64_t number) {
    std::string name;
    std::vector<int64_t> index(rank);
    for (size_t axis = rank; axis-- > 0; number /= counts[axis]) index[axis] = number % counts[axis];
    for (size_t axis = 0; axis < rank; ++axis) name += (axis > 0 ? layout.separator : "") + std::to_string(index[axis]);
    return folder / (rank == 0 ? "0" : name);
  };
  // Looks for every chunk's file before it takes memory: a shape alone must not make it allocate.
  const auto form = layout.compressed ? ByteStream::Form::kDeflated : ByteStream::Form::kPlain;
  for (int64_t number = 0; number < num_chunks; ++number) {
    const auto path = path_of(number);
    std::error_code absent;
    const uint64_t size = fs::file_size(path, absent);
    SY_CHECK(!absent, path.string(), " is missing; the array has ", num_chunks, " chunks");
    SY_CHECK(layout.compressed ? chunk_bytes <= (size + 1) * ByteStream::kMostOfOne : chunk_bytes == size,
             path.string(), ": ", size, " bytes", layout.compressed ? " of compressed data" : "", ", a chunk has ",
             chunk_bytes);
  }

  at::Tensor array = at::empty(layout.shape, options);
  const at::Tensor chunk = at::empty(layout.chunks, options);
  for (int64_t number = 0; number < num_chunks; ++number) {
    const auto path = path_of(number);
    const std::string file = read_file(path, chunk_bytes + (1 << 20));
    ByteStream bytes(std::as_bytes(std::span(file)), form, path.string());
    bytes.read({static_cast<std::byte*>(chunk.mutable_data_ptr()), chunk_bytes});
    SY_CHECK(bytes.at_end(), path.string(), ": more than the ", chunk_bytes, " bytes of a chunk");
    at::Tensor target = array, source = chunk;  // the part inside the array: chunks at the far edges reach past it
    int64_t rest = number;
    for (size_t axis = rank; axis-- > 0; rest /= counts[axis]) {
      const int64_t begin = rest % counts[axis] * layout.chunks[axis];
      const int64_t size = std::min(layout.chunks[axis], layout.shape[axis] - begin);
      target = target.narrow(static_cast<int64_t>(axis), begin, size);
      source = source.narrow(static_cast<int64_t>(axis), 0, size);
    }
    target.copy_(source);
  }
  return array;
}

}  // namespace switchyard
