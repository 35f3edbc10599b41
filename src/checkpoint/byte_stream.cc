#include "checkpoint/byte_stream.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace switchyard {
namespace {

constexpr size_t kBufferBytes = size_t{1} << 16;

int end_inflater(z_stream* stream) {
  const std::unique_ptr<z_stream> owned(stream);
  return ::inflateEnd(stream);
}

}  // namespace

bool is_gzip(std::span<const std::byte> bytes) {
  return bytes.size() >= 2 && bytes[0] == std::byte{0x1f} && bytes[1] == std::byte{0x8b};
}

ByteStream::ByteStream(std::span<const std::byte> bytes, Form form, std::string source)
    : source_(std::move(source)), inflater_(nullptr, end_inflater) {
  if (form == Form::kPlain) {
    ready_ = bytes;
    return;
  }
  deflated_ = bytes;
  buffer_.resize(kBufferBytes);
  auto stream = std::make_unique<z_stream>();
  SY_CHECK(::inflateInit2(stream.get(), 15 + 32) == Z_OK, source_, ": zlib cannot start");  // 32: gzip or zlib
  inflater_.reset(stream.release());
}

size_t ByteStream::inflate_into(std::span<std::byte> out) {
  constexpr size_t kMost = size_t{1} << 30;  // zlib counts in 32 bits
  size_t produced = 0;
  while (inflater_ && produced == 0) {
    const size_t input = std::min(deflated_.size(), kMost), room = std::min(out.size(), kMost);
    inflater_->next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(deflated_.data()));
    inflater_->avail_in = static_cast<uInt>(input);
    inflater_->next_out = reinterpret_cast<Bytef*>(out.data());
    inflater_->avail_out = static_cast<uInt>(room);
    const int status = ::inflate(inflater_.get(), Z_NO_FLUSH);
    SY_CHECK(status == Z_OK || status == Z_STREAM_END, source_, ": the compressed data is damaged or cut short");
    deflated_ = deflated_.subspan(input - inflater_->avail_in);
    produced = room - inflater_->avail_out;
    if (status == Z_STREAM_END) inflater_.reset();
  }
  return produced;
}

bool ByteStream::refill() {
  if (ready_.empty() && inflater_) ready_ = std::span(buffer_).first(inflate_into(buffer_));
  return !ready_.empty();
}

void ByteStream::read(std::span<std::byte> out) {
  while (!out.empty()) {
    size_t count = 0;
    if (ready_.empty() && out.size() >= kBufferBytes) {
      count = inflate_into(out);
    } else if (refill()) {
      count = std::min(out.size(), ready_.size());
      std::memcpy(out.data(), ready_.data(), count);
      ready_ = ready_.subspan(count);
    }
    SY_CHECK(count > 0, source_, ": cut short: it ends at byte ", position_, ", ", out.size(), " more were expected");
    position_ += count;
    out = out.subspan(count);
  }
}

void ByteStream::skip(uint64_t size) {
  while (size > 0) {
    SY_CHECK(refill(), source_, ": cut short: it ends at byte ", position_, ", ", size, " more were expected");
    const auto count = static_cast<size_t>(std::min<uint64_t>(size, ready_.size()));
    ready_ = ready_.subspan(count);
    position_ += count;
    size -= count;
  }
}

bool ByteStream::at_end() { return !refill(); }

uint64_t ByteStream::most_left() const { return ready_.size() + (inflater_ ? (deflated_.size() + 1) * kMostOfOne : 0); }

}  // namespace switchyard
