#include "checkpoint/gguf_header.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>

#include "base/error.h"

namespace switchyard {
namespace {

constexpr char kMagic[] = "GGUF";
constexpr uint64_t kMaxList = uint64_t{1} << 24;  // of numbers: in memory they take eight times their bytes in the file
constexpr uint32_t kMaxRank = 4;                  // ggml's

constexpr std::array kForms = {
    GgufForm{GgufType::kF32, "F32", 1, 4},       GgufForm{GgufType::kF16, "F16", 1, 2},
    GgufForm{GgufType::kQ4_0, "Q4_0", 32, 18},   GgufForm{GgufType::kQ8_0, "Q8_0", 32, 34},
    GgufForm{GgufType::kQ4_K, "Q4_K", 256, 144}, GgufForm{GgufType::kQ5_K, "Q5_K", 256, 176},
    GgufForm{GgufType::kQ6_K, "Q6_K", 256, 210}, GgufForm{GgufType::kBF16, "BF16", 1, 2},
};

std::string shorten(const std::string& name) { return name.size() <= 120 ? name : name.substr(0, 120) + "..."; }

// Reads the head from its beginning to its end, through one buffer.
class Reader {
 public:
  Reader(const InputFile& file, const std::string& source) : file_(file), source_(source) {}

  uint64_t position() const { return position_; }
  uint64_t left() const { return file_.size() - position_; }

  void read(void* to, uint64_t size) {
    SY_CHECK(size <= left(), source_, ": the file ends at byte ", file_.size(), " within its head; it is cut short");
    auto* out = static_cast<char*>(to);
    while (size > 0) {
      if (position_ < begin_ || position_ >= begin_ + count_) refill();
      const uint64_t count = std::min(size, begin_ + count_ - position_);
      std::memcpy(out, buffer_.data() + (position_ - begin_), count);
      out += count;
      position_ += count;
      size -= count;
    }
  }
  template <class T>
  T number() {
    T value{};
    read(&value, sizeof value);
    return value;
  }
  std::string text(const char* what) {
    const auto length = number<uint64_t>();
    SY_CHECK(length <= left(), source_, ": ", what, " at byte ", position_, " is ", length,
             " bytes long, but the file has ", left(), " left");
    std::string value(length, '\0');
    read(value.data(), length);
    return value;
  }

 private:
  void refill() {
    begin_ = position_;
    count_ = std::min<uint64_t>(buffer_.size(), file_.size() - position_);
    file_.read(begin_, buffer_.data(), count_);
  }

  const InputFile& file_;
  const std::string& source_;
  std::array<char, 1 << 16> buffer_;
  uint64_t begin_ = 0, count_ = 0, position_ = 0;
};

enum ValueType : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64
};

// Bytes that a value takes at the least; 0 for an unknown type.
uint64_t least_bytes(uint32_t type) {
  switch (type) {
    case kUint8:
    case kInt8:
    case kBool:
      return 1;
    case kUint16:
    case kInt16:
      return 2;
    case kUint32:
    case kInt32:
    case kFloat32:
      return 4;
    case kString:
    case kUint64:
    case kInt64:
    case kFloat64:
      return 8;
    default:
      return 0;
  }
}

bool is_fraction(uint32_t type) { return type == kFloat32 || type == kFloat64; }

class HeaderReader {
 public:
  HeaderReader(const InputFile& file, const std::string& source)
      : file_(file), source_(source), reader_(file, source) {}

  GgufHeader read() {
    GgufHeader header;
    char magic[4] = {};
    if (file_.size() >= 4) reader_.read(magic, 4);
    SY_CHECK(std::memcmp(magic, kMagic, 4) == 0, source_, ": not a GGUF file; expected one that begins with \"GGUF\"");
    const auto version = reader_.number<uint32_t>();
    SY_CHECK((version & 0xFFFF) != 0, source_, ": a big-endian GGUF file; expected a little-endian one");
    SY_CHECK(version == 2 || version == 3, source_, ": GGUF version ", version, ", expected 2 or 3");
    const auto num_tensors = reader_.number<uint64_t>(), num_values = reader_.number<uint64_t>();
    check_count(num_tensors, 32, "tensors");
    check_count(num_values, 13, "keys");
    for (uint64_t n = 0; n < num_values; ++n) read_pair(header);
    const int64_t alignment = header.integer("general.alignment", source_, 32);
    SY_CHECK(alignment > 0 && alignment <= (1 << 20) && std::has_single_bit(static_cast<uint64_t>(alignment)), source_,
             ": general.alignment is ", alignment, ", expected a power of two up to 2^20");
    for (uint64_t n = 0; n < num_tensors; ++n) header.tensors.push_back(read_tensor());
    place(header.tensors, static_cast<uint64_t>(alignment));
    return header;
  }

 private:
  void check_count(uint64_t count, uint64_t least, const char* what) {
    SY_CHECK(count <= reader_.left() / least, source_, ": ", count, " ", what, " announced, but the file has ",
             reader_.left(), " bytes left");
  }

  void read_pair(GgufHeader& header) {
    const auto key = reader_.text("a key");
    const auto place = source_ + ": " + shorten(key);
    const auto type = reader_.number<uint32_t>();
    auto value = type == kArray ? read_list(place) : read_value(type, place);
    SY_CHECK(header.values.emplace(key, std::move(value)).second, place, " stands twice");
  }

  int64_t read_integer(uint32_t type, const std::string& place) {
    switch (type) {
      case kUint8:
        return reader_.number<uint8_t>();
      case kInt8:
        return reader_.number<int8_t>();
      case kUint16:
        return reader_.number<uint16_t>();
      case kInt16:
        return reader_.number<int16_t>();
      case kUint32:
        return reader_.number<uint32_t>();
      case kInt32:
        return reader_.number<int32_t>();
      case kInt64:
        return reader_.number<int64_t>();
      case kUint64: {
        const auto value = reader_.number<uint64_t>();
        SY_CHECK(value <= uint64_t{std::numeric_limits<int64_t>::max()}, place, " is ", value, ": out of range");
        return static_cast<int64_t>(value);
      }
      case kBool: {
        const auto value = reader_.number<uint8_t>();
        SY_CHECK(value <= 1, place, ": a truth value is ", int{value}, ", expected 0 or 1");
        return value;
      }
      default:
        throw Error(join(place, " has type ", type, ", expected one of GGUF's, 0 to 12"));
    }
  }
  double read_fraction(uint32_t type) {
    return type == kFloat32 ? double{reader_.number<float>()} : reader_.number<double>();
  }
  GgufValue read_value(uint32_t type, const std::string& place) {
    if (type == kString) return reader_.text("a text");
    if (is_fraction(type)) return read_fraction(type);
    return read_integer(type, place);
  }

  GgufValue read_list(const std::string& place) {
    const auto type = reader_.number<uint32_t>();
    const auto count = reader_.number<uint64_t>();
    SY_CHECK(type != kArray, place, ": lists of lists are not read");
    SY_CHECK(least_bytes(type) > 0, place, ": a list of type ", type, ", expected one of GGUF's, 0 to 12");
    SY_CHECK(count <= reader_.left() / least_bytes(type) && count <= kMaxList, place, ": a list of ", count,
             " values, but the file has ", reader_.left(), " bytes left, and at most ", kMaxList, " are taken");
    if (type == kString) return filled<std::string>(count, [&] { return reader_.text("a text"); });
    if (is_fraction(type)) return filled<double>(count, [&] { return read_fraction(type); });
    return filled<int64_t>(count, [&] { return read_integer(type, place); });
  }
  template <class T, class Read>
  static GgufValue filled(uint64_t count, const Read& read) {
    std::vector<T> list;
    list.reserve(count);
    for (uint64_t n = 0; n < count; ++n) list.push_back(read());
    return list;
  }

  GgufTensor read_tensor() {
    GgufTensor tensor{.name = reader_.text("a tensor's name"), .shape = {}};
    const auto where = source_ + ": tensor \"" + shorten(tensor.name) + "\"";
    const auto rank = reader_.number<uint32_t>();
    SY_CHECK(rank >= 1 && rank <= kMaxRank, where, " has ", rank, " dimensions, expected 1 to ", kMaxRank);
    uint64_t numel = 1;
    for (uint32_t axis = 0; axis < rank; ++axis) {
      const auto size = reader_.number<uint64_t>();
      // No number takes less than half a byte.
      SY_CHECK(size >= 1 && !__builtin_mul_overflow(numel, size, &numel) && numel / 2 <= file_.size(), where,
               ": dimension ", size, " is out of range; the file has ", file_.size(), " bytes");
      tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(size));
    }
    const auto type = reader_.number<uint32_t>();
    const auto* form = std::find_if(kForms.begin(), kForms.end(),
                                    [&](const GgufForm& each) { return static_cast<uint32_t>(each.type) == type; });
    SY_CHECK(form != kForms.end(), where, " is of ggml's type ", type,
             "; expected F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q5_K or Q6_K");
    SY_CHECK(tensor.shape.back() % form->block_values == 0, where, ": rows of ", tensor.shape.back(), " values, but ",
             form->name, " has blocks of ", form->block_values);
    tensor.type = form->type;
    tensor.bytes = numel / static_cast<uint64_t>(form->block_values) * static_cast<uint64_t>(form->block_bytes);
    tensor.offset = reader_.number<uint64_t>();
    return tensor;
  }

  // From offsets in the data to places in the file.
  void place(std::vector<GgufTensor>& tensors, uint64_t alignment) const {
    const uint64_t data = (reader_.position() + alignment - 1) / alignment * alignment;
    std::vector<const GgufTensor*> by_name;
    for (auto& tensor : tensors) {
      const auto where = source_ + ": tensor \"" + shorten(tensor.name) + "\"";
      SY_CHECK(tensor.offset % alignment == 0, where, " begins at byte ", tensor.offset,
               " of the data, expected a multiple of ", alignment);
      SY_CHECK(data <= file_.size() && tensor.offset <= file_.size() - data &&
                   tensor.bytes <= file_.size() - data - tensor.offset,
               where, ": ", tensor.bytes, " bytes from byte ", tensor.offset, " of the data, but that has ",
               file_.size() - std::min(data, file_.size()), "; the file is cut short: fetch or copy it again");
      tensor.offset += data;
      by_name.push_back(&tensor);
    }
    std::sort(by_name.begin(), by_name.end(),
              [](const auto* left, const auto* right) { return left->name < right->name; });
    for (size_t n = 1; n < by_name.size(); ++n)
      SY_CHECK(by_name[n - 1]->name != by_name[n]->name, source_, ": tensor \"", shorten(by_name[n]->name),
               "\" stands twice");
    std::sort(tensors.begin(), tensors.end(),
              [](const auto& left, const auto& right) { return left.offset < right.offset; });
    for (size_t n = 1; n < tensors.size(); ++n)
      SY_CHECK(tensors[n - 1].offset + tensors[n - 1].bytes <= tensors[n].offset, source_, ": tensors \"",
               shorten(tensors[n - 1].name), "\" and \"", shorten(tensors[n].name), "\" overlap at byte ",
               tensors[n].offset);
  }

  const InputFile& file_;
  const std::string& source_;
  Reader reader_;
};

template <class T>
const T* find(const GgufHeader& header, const std::string& key, const std::string& source, const char* expected) {
  const auto found = header.values.find(key);
  if (found == header.values.end()) return nullptr;
  const auto* value = std::get_if<T>(&found->second);
  SY_CHECK(value != nullptr, source, ": ", key, " is of another type, expected ", expected);
  return value;
}

}  // namespace

const GgufForm& gguf_form(GgufType type) {
  return *std::find_if(kForms.begin(), kForms.end(), [&](const GgufForm& each) { return each.type == type; });
}

int64_t GgufHeader::integer(const std::string& key, const std::string& source, int64_t otherwise) const {
  const auto* value = find<int64_t>(*this, key, source, "an integer");
  return value != nullptr ? *value : otherwise;
}

double GgufHeader::number(const std::string& key, const std::string& source, double otherwise) const {
  const auto* value = find<double>(*this, key, source, "a fraction");
  return value != nullptr ? *value : otherwise;
}

std::string GgufHeader::text(const std::string& key, const std::string& source) const {
  const auto* value = find<std::string>(*this, key, source, "a text");
  return value != nullptr ? *value : "";
}

GgufHeader read_gguf_header(const InputFile& file, const std::string& source) {
  return HeaderReader(file, source).read();
}

bool is_gguf(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) return false;
  const InputFile file(path);
  char magic[4] = {};
  if (file.size() >= 4) file.read(0, magic, 4);
  return std::memcmp(magic, kMagic, 4) == 0;
}

}  // namespace switchyard
