#include "checkpoint/gzip.h"

#include <zlib.h>

#include <algorithm>
#include <memory>

#include "base/error.h"

namespace switchyard {

bool is_gzip(std::span<const std::byte> bytes) {
  return bytes.size() >= 2 && bytes[0] == std::byte{0x1f} && bytes[1] == std::byte{0x8b};
}

std::string inflate(std::span<const std::byte> bytes, uint64_t limit, const std::string& source) {
  constexpr size_t kStep = size_t{1} << 24;
  z_stream stream{};
  SY_CHECK(::inflateInit2(&stream, 15 + 32) == Z_OK, source, ": zlib cannot start");  // 32: gzip or zlib, by its header
  const std::unique_ptr<z_stream, int (*)(z_stream*)> closer(&stream, ::inflateEnd);
  std::string out;
  size_t produced = 0, consumed = 0;
  int status = Z_OK;
  while (status == Z_OK) {
    if (produced == out.size()) {
      SY_CHECK(produced <= limit, source, ": uncompressed it has more than ", limit, " bytes");
      out.resize(produced + std::min<uint64_t>(kStep, limit + 1 - produced));
    }
    const size_t input = std::min(bytes.size() - consumed, kStep), room = std::min(out.size() - produced, kStep);
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(bytes.data() + consumed));
    stream.avail_in = static_cast<uInt>(input);
    stream.next_out = reinterpret_cast<Bytef*>(out.data() + produced);
    stream.avail_out = static_cast<uInt>(room);
    status = ::inflate(&stream, Z_NO_FLUSH);
    consumed += input - stream.avail_in;
    produced += room - stream.avail_out;
  }
  SY_CHECK(status == Z_STREAM_END, source, ": the compressed data is damaged or cut short");
  SY_CHECK(produced <= limit, source, ": uncompressed it has more than ", limit, " bytes");
  out.resize(produced);
  return out;
}

}  // namespace switchyard
