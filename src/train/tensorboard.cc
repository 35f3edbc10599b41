#include "train/tensorboard.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>

namespace switchyard {
namespace {

constexpr std::array<uint32_t, 256> make_crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78u : 0u);
    table[byte] = crc;
  }
  return table;
}
constexpr auto kCrcTable = make_crc_table();

uint32_t masked_crc(std::string_view bytes) { return std::rotr(crc32c(bytes), 15) + 0xA282EAD8u; }

template <class Integer>
void append_little_endian(std::string& out, Integer value) {
  for (size_t byte = 0; byte < sizeof value; ++byte) out += static_cast<char>(value >> (8 * byte) & 0xFF);
}

// The protobuf wire format: a field is a tag (number << 3 | kind), then a varint, fixed bytes, or a length and bytes.
enum WireKind : uint64_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void append_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>((value & 0x7F) | 0x80);
  out += static_cast<char>(value);
}
void append_tag(std::string& out, uint64_t field, WireKind kind) { append_varint(out, field << 3 | kind); }
void append_bytes(std::string& out, uint64_t field, std::string_view bytes) {
  append_tag(out, field, kBytes);
  append_varint(out, bytes.size());
  out += bytes;
}

// Event { double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5; SessionLog session_log =
// 7 }
std::string begin_event(int64_t step) {
  const double now = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  std::string event;
  append_tag(event, 1, kFixed64);
  append_little_endian(event, std::bit_cast<uint64_t>(now));
  append_tag(event, 2, kVarint);
  append_varint(event, static_cast<uint64_t>(step));
  return event;
}

// Summary { repeated Value value = 1 }, Value { string tag = 1; float simple_value = 2 }
void append_scalar(std::string& summary, const std::string& tag, double number) {
  std::string value;
  append_bytes(value, 1, tag);
  append_tag(value, 2, kFixed32);
  append_little_endian(value, std::bit_cast<uint32_t>(static_cast<float>(number)));
  append_bytes(summary, 1, value);
}

void append_scalars(std::string& summary, const Json& metrics, const std::string& prefix) {
  for (const auto& [key, value] : metrics.items()) {
    if (value.is_number() && prefix + key != "step") append_scalar(summary, prefix + key, value.get<double>());
    if (value.is_object()) append_scalars(summary, value, prefix + key + "/");
  }
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  uint32_t crc = ~uint32_t{0};
  for (const char byte : bytes) crc = (crc >> 8) ^ kCrcTable[(crc ^ static_cast<uint8_t>(byte)) & 0xFF];
  return ~crc;
}

EventWriter::EventWriter(const std::filesystem::path& folder, int64_t step) {
  const auto seconds =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  for (int attempt = 0; descriptor_ < 0; ++attempt) {  // TensorBoard reads a folder's files in the order of their names
    path_ = folder / join("events.out.tfevents.", seconds, ".switchyard.", ::getpid(), ".", attempt);
    descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0644);
    SY_CHECK(descriptor_ >= 0 || errno == EEXIST, path_.string(), ": cannot be made: ", std::strerror(errno));
  }
  std::string version = begin_event(0);
  append_bytes(version, 3, "brain.Event:2");
  append(version);
  std::string start = begin_event(step + 1);
  append_bytes(start, 7, std::string_view("\x08\x01", 2));  // SessionLog { status = 1: START }
  append(start);
}

EventWriter::~EventWriter() { ::close(descriptor_); }

void EventWriter::write(int64_t step, const Json& metrics) {
  std::string summary;
  append_scalars(summary, metrics, "");
  if (summary.empty()) return;
  std::string event = begin_event(step);
  append_bytes(event, 5, summary);
  append(event);
}

void EventWriter::append(std::string_view event) {
  std::string record;
  append_little_endian(record, static_cast<uint64_t>(event.size()));
  append_little_endian(record, masked_crc(record));
  record += event;
  append_little_endian(record, masked_crc(event));
  ssize_t written;
  do written = ::write(descriptor_, record.data(), record.size());
  while (written < 0 && errno == EINTR);
  SY_CHECK(written == static_cast<ssize_t>(record.size()), path_.string(),
           ": cannot be written: ", std::strerror(written < 0 ? errno : ENOSPC));
}

}  // namespace switchyard
