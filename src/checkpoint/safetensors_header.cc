#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <tuple>
#include <unordered_set>

#include "base/error.h"
#include "checkpoint/safetensors.h"

namespace switchyard {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the reference implementation's bound
constexpr size_t kMaxRank = 64;                    // what ATen's iterators take

std::string shorten(const std::string& name) { return name.size() <= 120 ? name : name.substr(0, 120) + "..."; }

// Takes the header's JSON as a stream of events, so that memory stays in proportion to the text, repeated keys are seen
// and no deep nesting is ever built.
class HeaderReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderReader(const std::string& source, SafetensorsHeader& header) : source_(source), header_(header) {}

  bool start_object(size_t) override {
    switch (place_) {
      case Place::kStart:
        place_ = Place::kTop;
        return true;
      case Place::kTop:
        place_ = key_ == "__metadata__" ? Place::kMetadata : Place::kTensor;
        return true;
      default:
        return refuse("an object");
    }
  }
  bool end_object() override {
    if (place_ == Place::kTensor) finish_tensor();
    place_ = place_ == Place::kTop ? Place::kEnd : Place::kTop;
    return true;
  }
  bool key(std::string& key) override {
    if (place_ == Place::kTop) {
      SY_CHECK(names_.insert(key).second, source_, ": \"", shorten(key), "\" stands twice in the header");
      key_ = key;
      entry_ = {};
      entry_.name = key;
      has_dtype_ = has_shape_ = false;
      offsets_.clear();
    } else if (place_ == Place::kMetadata) {
      field_ = key;
    } else {
      SY_CHECK(key == "dtype" || key == "shape" || key == "data_offsets", where(), "unknown entry \"", shorten(key),
               "\"");
      field_ = key;
    }
    return true;
  }
  bool string(std::string& value) override {
    if (place_ == Place::kMetadata) {
      header_.metadata[field_] = value;
      return true;
    }
    if (place_ != Place::kTensor || field_ != "dtype") return refuse("a string");
    SY_CHECK(!has_dtype_, where(), "dtype stands twice");
    const auto* found = std::find_if(std::begin(kSafetensorsDtypes), std::end(kSafetensorsDtypes),
                                     [&](const auto& each) { return value == each.name; });
    SY_CHECK(found != std::end(kSafetensorsDtypes), where(), "dtype \"", shorten(value),
             "\" is not supported; expected F64, F32, F16, BF16, I64, I32, I16, I8, U8 or BOOL");
    entry_.dtype = found->dtype;
    has_dtype_ = true;
    return true;
  }
  bool start_array(size_t) override {
    if (place_ != Place::kTensor || field_ == "dtype") return refuse("a list");
    SY_CHECK(field_ == "shape" ? !has_shape_ : offsets_.empty(), where(), field_, " stands twice");
    place_ = field_ == "shape" ? Place::kShape : Place::kOffsets;
    return true;
  }
  bool end_array() override {
    if (place_ == Place::kShape) has_shape_ = true;
    if (place_ == Place::kOffsets)
      SY_CHECK(offsets_.size() == 2, where(), "data_offsets has ", offsets_.size(), " numbers, expected 2");
    place_ = Place::kTensor;
    return true;
  }
  bool number_unsigned(uint64_t value) override {
    if (place_ == Place::kShape) {
      SY_CHECK(value <= uint64_t{std::numeric_limits<int64_t>::max()}, where(), "dimension ", value,
               " is out of range");
      SY_CHECK(entry_.shape.size() < kMaxRank, where(), "more than ", kMaxRank, " dimensions");
      entry_.shape.push_back(static_cast<int64_t>(value));
      return true;
    }
    if (place_ != Place::kOffsets) return refuse("a number");
    SY_CHECK(offsets_.size() < 2, where(), "data_offsets has more than 2 numbers");
    offsets_.push_back(value);
    return true;
  }
  bool number_integer(int64_t) override { return refuse("a negative number"); }
  bool number_float(double, const std::string&) override { return refuse("a fraction or a number out of range"); }
  bool boolean(bool) override { return refuse("true or false"); }
  bool null() override { return refuse("null"); }
  bool binary(nlohmann::json::binary_t&) override { return refuse("binary data"); }
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) override {
    throw Error(join(source_, ": the header is not valid JSON in UTF-8 (byte ", position, " of it)"));
  }

 private:
  enum class Place { kStart, kTop, kMetadata, kTensor, kShape, kOffsets, kEnd };

  std::string where() const { return source_ + ": tensor \"" + shorten(key_) + "\": "; }
  bool refuse(const char* what) const {
    throw Error(join(
        key_.empty() && place_ != Place::kTensor ? source_ + ": header: " : where(), "got ", what,
        key_ == "__metadata__" ? ", expected strings only" : ", expected {\"dtype\", \"shape\", \"data_offsets\"}"));
  }
  void finish_tensor() {
    SY_CHECK(has_dtype_ && has_shape_ && offsets_.size() == 2, where(), "dtype, shape or data_offsets is missing");
    SY_CHECK(offsets_[0] <= offsets_[1], where(), "data_offsets run backwards: ", offsets_[0], " to ", offsets_[1]);
    entry_.begin = offsets_[0];
    entry_.end = offsets_[1];
    // Counted twice: with zeros, for the bytes, and with ones in their place, for the strides.
    uint64_t bytes = c10::elementSize(entry_.dtype), stride = bytes;
    bool overflow = false;
    for (const int64_t size : entry_.shape) {
      overflow |= __builtin_mul_overflow(stride, static_cast<uint64_t>(std::max<int64_t>(size, 1)), &stride);
      overflow |= stride > uint64_t{std::numeric_limits<int64_t>::max()};
      bytes *= static_cast<uint64_t>(size);
    }
    SY_CHECK(!overflow, where(), "the shape's size overflows");
    SY_CHECK(entry_.end - entry_.begin == bytes, where(), "data_offsets span ", entry_.end - entry_.begin,
             " bytes, but shape and dtype need ", bytes);
    header_.entries.push_back(std::move(entry_));
  }

  const std::string& source_;
  SafetensorsHeader& header_;
  Place place_ = Place::kStart;
  std::string key_, field_;
  SafetensorsEntry entry_;
  bool has_dtype_ = false, has_shape_ = false;
  std::vector<uint64_t> offsets_;
  std::unordered_set<std::string> names_;
};

// Tensors must cover the data section once, without gap or overlap.
void check_coverage(std::vector<SafetensorsEntry>& entries, uint64_t data_bytes, const std::string& source) {
  std::sort(entries.begin(), entries.end(), [](const auto& left, const auto& right) {
    return std::tie(left.begin, left.end, left.name) < std::tie(right.begin, right.end, right.name);
  });
  uint64_t covered = 0;
  for (const auto& entry : entries) {
    SY_CHECK(entry.begin == covered, source, ": tensor \"", shorten(entry.name), "\" begins at byte ", entry.begin,
             " of the data, expected ", covered,
             entry.begin < covered ? " (it overlaps another)" : " (there is a gap)");
    covered = entry.end;
  }
  SY_CHECK(covered == data_bytes, source, ": the tensors need ", covered, " bytes of data, but the file has ",
           data_bytes,
           covered > data_bytes ? "; it is cut short: fetch or copy it again" : "; it has bytes that no tensor owns");
}

uint64_t announced_bytes(std::span<const std::byte> file) {
  uint64_t length = 0;
  for (size_t i = 0; i < 8; ++i) length |= std::to_integer<uint64_t>(file[i]) << (8 * i);
  return length;
}

}  // namespace

uint64_t safetensors_header_bytes(std::span<const std::byte> file) {
  return file.size() < 8 ? 0 : std::min(announced_bytes(file), kMaxHeaderBytes);
}

SafetensorsHeader parse_safetensors(std::span<const std::byte> file, const std::string& source,
                                    std::optional<uint64_t> file_bytes) {
  const uint64_t size = file_bytes.value_or(file.size());
  SY_CHECK(file.size() >= 8, source, ": ", size,
           " bytes are too few for a safetensors file (8 bytes of header length)");
  const uint64_t length = announced_bytes(file);
  SY_CHECK(length <= kMaxHeaderBytes, source, ": the header claims ", length, " bytes, at most ", kMaxHeaderBytes,
           " are allowed; is this a safetensors file?");
  SY_CHECK(length <= size - 8, source, ": the header claims ", length, " bytes, but only ", size - 8,
           " follow; the file is cut short");
  SY_CHECK(length <= file.size() - 8, source, ": ", file.size(), " bytes of a header of ", length, " were given");
  const auto* text = reinterpret_cast<const char*>(file.data()) + 8;
  SY_CHECK(length > 0 && text[0] == '{', source, ": the header does not begin with '{'");
  SafetensorsHeader header;
  header.data_offset = 8 + length;
  HeaderReader reader(source, header);
  nlohmann::json::sax_parse(text, text + length, &reader);
  check_coverage(header.entries, size - header.data_offset, source);
  return header;
}

const char* safetensors_dtype_name(at::ScalarType dtype) {
  for (const auto& each : kSafetensorsDtypes)
    if (each.dtype == dtype) return each.name;
  throw Error(join("tensors of type ", c10::toString(dtype), " cannot be stored in a safetensors file"));
}

}  // namespace switchyard
