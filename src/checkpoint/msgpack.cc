#include "checkpoint/msgpack.h"

#include <ATen/ops/empty.h>

#include <array>
#include <utility>

#include "base/error.h"

namespace switchyard {
namespace {

constexpr int kMaxDepth = 64;
constexpr uint64_t kMaxValues = uint64_t{1} << 24;
constexpr size_t kMaxArrays = size_t{1} << 16;
constexpr size_t kMaxPathBytes = 1024;  // T5X's take 120; each array keeps its own
constexpr int kFlaxArray = 1;           // extension type

class Reader {
 public:
  Reader(ByteStream& bytes, const std::string& source, const std::function<bool(const std::string&)>& wanted)
      : bytes_(bytes), source_(source), wanted_(wanted) {}

  NamedTensors run() {
    read_value(0);
    check(bytes_.at_end(), "bytes follow the end");
    return std::move(arrays_);
  }

 private:
  void check(bool condition, const char* what) const {
    SY_CHECK(condition, source_, ": cannot read the msgpack data: ", what, " (byte ", bytes_.position(), ")");
  }
  // Big-endian.
  template <class T>
  T read() {
    std::array<std::byte, sizeof(T)> bytes;
    bytes_.read(bytes);
    T value = 0;
    for (const std::byte byte : bytes) value = static_cast<T>((value << 8) | std::to_integer<T>(byte));
    return value;
  }

  std::string read_string() {
    const auto head = read<uint8_t>();
    uint64_t size = 0;
    if (head >= 0xa0 && head <= 0xbf)
      size = head & 0x1f;
    else if (head == 0xd9)
      size = read<uint8_t>();
    else if (head == 0xda)
      size = read<uint16_t>();
    else if (head == 0xdb)
      size = read<uint32_t>();
    else
      check(false, "expected a string");
    check(size <= kMaxPathBytes, "a key is too long");
    std::string text(size, '\0');
    bytes_.read(std::as_writable_bytes(std::span(text)));
    return text;
  }

  // Walks one value of whatever type, collecting arrays below maps.
  void read_value(int depth) {
    check(depth < kMaxDepth, "it is nested too deeply");
    check(++num_values_ <= kMaxValues, "it has too many values");
    const auto head = read<uint8_t>();
    if (head <= 0x7f || head >= 0xe0) return;  // small numbers
    if (head <= 0x8f) return read_map(head & 0x0f, depth);
    if (head <= 0x9f) return read_list(head & 0x0f, depth);
    if (head <= 0xbf) {
      bytes_.skip(head & 0x1f);
      return;
    }
    switch (head) {
      case 0xc0:  // nil, false, true
      case 0xc2:
      case 0xc3:
        return;
      case 0xc4:
      case 0xd9:
        bytes_.skip(read<uint8_t>());
        return;
      case 0xc5:
      case 0xda:
        bytes_.skip(read<uint16_t>());
        return;
      case 0xc6:
      case 0xdb:
        bytes_.skip(read<uint32_t>());
        return;
      case 0xc7:
        return read_extension(read<uint8_t>());
      case 0xc8:
        return read_extension(read<uint16_t>());
      case 0xc9:
        return read_extension(read<uint32_t>());
      case 0xcc:  // numbers of 1, 2, 4, 8 bytes
      case 0xd0:
        bytes_.skip(1);
        return;
      case 0xcd:
      case 0xd1:
        bytes_.skip(2);
        return;
      case 0xca:
      case 0xce:
      case 0xd2:
        bytes_.skip(4);
        return;
      case 0xcb:
      case 0xcf:
      case 0xd3:
        bytes_.skip(8);
        return;
      case 0xd4:  // extensions of 1 to 16 bytes
      case 0xd5:
      case 0xd6:
      case 0xd7:
      case 0xd8:
        return read_extension(uint64_t{1} << (head - 0xd4));
      case 0xdc:
        return read_list(read<uint16_t>(), depth);
      case 0xdd:
        return read_list(read<uint32_t>(), depth);
      case 0xde:
        return read_map(read<uint16_t>(), depth);
      case 0xdf:
        return read_map(read<uint32_t>(), depth);
      default:
        check(false, "an unknown type");
    }
  }

  void read_map(uint64_t count, int depth) {
    const size_t outer = path_.size();
    for (uint64_t i = 0; i < count; ++i) {
      const auto key = read_string();
      check(key != "__msgpack_chunked_array__", "an array is split into chunks, which is not supported");
      if (outer > 0) path_ += '/';
      path_ += key;
      check(path_.size() <= kMaxPathBytes, "the keys of nested maps are too long");
      read_value(depth + 1);
      path_.resize(outer);
    }
  }
  void read_list(uint64_t count, int depth) {
    auto outer = std::exchange(path_, {});  // what lies in a list has no name
    for (uint64_t i = 0; i < count; ++i) read_value(depth + 1);
    path_ = std::move(outer);
  }

  void read_extension(uint64_t size) {
    const auto type = read<uint8_t>();
    if (type != kFlaxArray || !wanted_(path_)) return bytes_.skip(size);
    check(size <= bytes_.most_left(), "an array is larger than the rest of the file");
    check(arrays_.size() < kMaxArrays, "it has too many arrays");
    check(!arrays_.contains(path_), "an array's name stands twice");
    const uint64_t end = bytes_.position() + size;
    arrays_.emplace(path_, read_array(size));
    check(bytes_.position() == end, "an array is not as long as it says");
  }

  // Of at most `limit` bytes.
  at::Tensor read_array(uint64_t limit) {
    check(read<uint8_t>() == 0x93, "an array is not [shape, dtype, bytes]");
    const auto shape_head = read<uint8_t>();
    check(shape_head >= 0x90 && shape_head <= 0x9f, "an array's shape is not a short list");
    std::vector<int64_t> shape;
    uint64_t numel = 1;
    for (int axis = 0; axis < (shape_head & 0x0f); ++axis) {
      shape.push_back(static_cast<int64_t>(read_count()));
      check(!__builtin_mul_overflow(numel, static_cast<uint64_t>(shape.back()), &numel) && numel <= limit,
            "an array's shape is larger than its bytes");
    }
    const auto dtype = array_dtype(read_string());
    const auto data_head = read<uint8_t>();
    check(data_head >= 0xc4 && data_head <= 0xc6, "an array has no bytes");
    const uint64_t size = data_head == 0xc4 ? read<uint8_t>() : data_head == 0xc5 ? read<uint16_t>() : read<uint32_t>();
    check(size <= limit && size == numel * c10::elementSize(dtype), "an array's bytes do not fit its shape");
    auto array = at::empty(numel == 0 ? std::vector<int64_t>{0} : shape, at::TensorOptions().dtype(dtype));
    bytes_.read({static_cast<std::byte*>(array.mutable_data_ptr()), size});
    return array;
  }

  uint64_t read_count() {
    const auto head = read<uint8_t>();
    if (head <= 0x7f) return head;
    switch (head) {
      case 0xcc:
        return read<uint8_t>();
      case 0xcd:
        return read<uint16_t>();
      case 0xce:
        return read<uint32_t>();
      default:
        check(false, "an array's shape has something other than counts");
    }
    return 0;
  }

  at::ScalarType array_dtype(const std::string& name) const {
    const std::pair<const char*, at::ScalarType> types[] = {{"float32", at::kFloat}, {"float64", at::kDouble},
                                                            {"float16", at::kHalf},  {"bfloat16", at::kBFloat16},
                                                            {"int32", at::kInt},     {"int64", at::kLong}};
    for (const auto& [known, dtype] : types)
      if (name == known) return dtype;
    throw Error(join(source_, ": an array has type \"", name.substr(0, 40),
                     "\", expected float32, bfloat16, float16 or float64"));
  }

  ByteStream& bytes_;
  const std::string& source_;
  const std::function<bool(const std::string&)>& wanted_;
  std::string path_;  // keys of the maps around the value that is read
  uint64_t num_values_ = 0;
  NamedTensors arrays_;
};

}  // namespace

NamedTensors read_msgpack_arrays(ByteStream& bytes, const std::string& source,
                                 const std::function<bool(const std::string& path)>& wanted) {
  return Reader(bytes, source, wanted).run();
}

}  // namespace switchyard
