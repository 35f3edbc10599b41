#include "checkpoint/gguf_blocks.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace switchyard {
namespace {

constexpr int64_t kPassValues = int64_t{1} << 19;  // a multiple of every block

float half(const uint8_t* bytes) {
  uint16_t bits = 0;
  std::memcpy(&bits, bytes, sizeof bits);
  return c10::detail::fp16_ieee_to_fp32_value(bits);
}

// d, 32 x i8.
void block_q8_0(const uint8_t* block, float* out) {
  const float scale = half(block);
  for (int n = 0; n < 32; ++n) out[n] = scale * static_cast<float>(static_cast<int8_t>(block[2 + n]));
}

// d, 16 bytes: low halves are the first 16 values, high halves the other 16; 8 is zero.
void block_q4_0(const uint8_t* block, float* out) {
  const float scale = half(block);
  for (int n = 0; n < 16; ++n) {
    out[n] = scale * static_cast<float>((block[2 + n] & 0xF) - 8);
    out[n + 16] = scale * static_cast<float>((block[2 + n] >> 4) - 8);
  }
}

// Eight groups' scales and minima of six bits each, in 12 bytes: the first four stand in the low bits of bytes 0 to 3
// and 4 to 7, whose high bits are those of the other four, with their low halves in bytes 8 to 11.
struct ScaleAndMinimum {
  float scale, minimum;
};
ScaleAndMinimum group_of(const uint8_t* packed, int group) {
  if (group < 4) return {static_cast<float>(packed[group] & 63), static_cast<float>(packed[group + 4] & 63)};
  return {static_cast<float>((packed[group + 4] & 0xF) | (packed[group - 4] >> 6 << 4)),
          static_cast<float>((packed[group + 4] >> 4) | (packed[group] >> 6 << 4))};
}

// d, dmin, 12 bytes of scales, with `fifth_bits` 32 bytes of one more bit a value, 128 bytes of four bits: two groups
// of 32 values in each 32 bytes, the low halves first.
void block_k(const uint8_t* block, bool fifth_bits, float* out) {
  const float scale = half(block), minimum = half(block + 2);
  const uint8_t* const packed = block + 4;
  const uint8_t* const high = block + 16;
  const uint8_t* const low = block + (fifth_bits ? 48 : 16);
  for (int group = 0; group < 8; ++group) {
    const auto [own_scale, own_minimum] = group_of(packed, group);
    const float by = scale * own_scale, less = minimum * own_minimum;
    for (int n = 0; n < 32; ++n) {
      int value = low[group / 2 * 32 + n] >> (group % 2 * 4) & 0xF;
      if (fifth_bits) value |= (high[n] >> group & 1) << 4;
      out[group * 32 + n] = by * static_cast<float>(value) - less;
    }
  }
}

// 128 bytes of four bits, 64 of two more, 16 x i8 scales of 16 values each, d; 32 is zero. Each half of the block has
// four runs of 32 values.
void block_q6_k(const uint8_t* block, float* out) {
  const float scale = half(block + 208);
  const auto* const scales = reinterpret_cast<const int8_t*>(block + 192);
  for (int64_t run = 0; run < 8; ++run) {
    const uint8_t* const low = block + run / 4 * 64 + run % 2 * 32;
    const uint8_t* const high = block + 128 + run / 4 * 32;
    for (int n = 0; n < 32; ++n) {
      const int four = low[n] >> (run % 4 / 2 * 4) & 0xF, two = high[n] >> (run % 4 * 2) & 3;
      const int64_t sixteenth = run * 2 + n / 16;
      out[run * 32 + n] = scale * static_cast<float>(scales[sixteenth]) * static_cast<float>((four | two << 4) - 32);
    }
  }
}

void dequantise_block(GgufType type, const uint8_t* block, float* out) {
  switch (type) {
    case GgufType::kQ4_0:
      return block_q4_0(block, out);
    case GgufType::kQ8_0:
      return block_q8_0(block, out);
    case GgufType::kQ4_K:
      return block_k(block, /*fifth_bits=*/false, out);
    case GgufType::kQ5_K:
      return block_k(block, /*fifth_bits=*/true, out);
    case GgufType::kQ6_K:
      return block_q6_k(block, out);
    case GgufType::kF32:
    case GgufType::kF16:
    case GgufType::kBF16:
      break;
  }
  throw Error("type without blocks");
}

// Values first, first + 1, ... by the blocks that hold them.
void read_blocks(const InputFile& file, const GgufTensor& tensor, int64_t first, const at::Tensor& to) {
  const auto& form = gguf_form(tensor.type);
  const auto target = to.view({-1});
  const int64_t end = first + to.numel();
  const int64_t pass = std::min(kPassValues, end - first + 2 * form.block_values) / form.block_values;  // blocks
  std::vector<uint8_t> bytes(static_cast<size_t>(pass * form.block_bytes));
  std::vector<float> values(static_cast<size_t>(pass * form.block_values));
  for (int64_t at = first; at < end;) {
    const int64_t block = at / form.block_values, begin = block * form.block_values;
    const int64_t count = std::min(pass, (end - begin + form.block_values - 1) / form.block_values);
    file.read(tensor.offset + static_cast<uint64_t>(block * form.block_bytes), bytes.data(),
              static_cast<size_t>(count * form.block_bytes));
    dequantise_blocks(tensor.type, bytes.data(), count, values.data());
    const int64_t taken = std::min(end, begin + count * form.block_values) - at;
    target.slice(0, at - first, at - first + taken)
        .copy_(at::from_blob(values.data() + (at - begin), {taken}, at::kFloat));
    at += taken;
  }
}

}  // namespace

void dequantise_blocks(GgufType type, const uint8_t* blocks, int64_t count, float* values) {
  const auto& form = gguf_form(type);
  for (int64_t n = 0; n < count; ++n)
    dequantise_block(type, blocks + n * form.block_bytes, values + n * form.block_values);
}

StoredTensor stored_in_gguf(std::shared_ptr<const InputFile> file, const GgufTensor& tensor) {
  switch (tensor.type) {
    case GgufType::kF32:
      return stored_in_file(std::move(file), tensor.offset, at::kFloat, tensor.shape);
    case GgufType::kF16:
      return stored_in_file(std::move(file), tensor.offset, at::kHalf, tensor.shape);
    case GgufType::kBF16:
      return stored_in_file(std::move(file), tensor.offset, at::kBFloat16, tensor.shape);
    default:
      return {at::kFloat, tensor.shape, [file = std::move(file), tensor](int64_t first, const at::Tensor& to) {
                read_blocks(*file, tensor, first, to);
              }};
  }
}

StoredTensor part_of(const StoredTensor& whole, int64_t number) {
  StoredTensor part{whole.dtype, {whole.shape.begin() + 1, whole.shape.end()}, {}};
  part.read = [read = whole.read, begin = number * part.numel()](int64_t first, const at::Tensor& to) {
    read(begin + first, to);
  };
  return part;
}

}  // namespace switchyard
