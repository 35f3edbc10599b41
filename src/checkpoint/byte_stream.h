// Bytes in their order, as they stand or uncompressed on the way: what a compressed file would grow to is never held.
#pragma once

#include <zlib.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace switchyard {

bool is_gzip(std::span<const std::byte> bytes);

class ByteStream {
 public:
  enum class Form { kPlain, kDeflated };        // kDeflated: gzip or zlib, by its header, one stream
  static constexpr uint64_t kMostOfOne = 1032;  // bytes that deflate makes of one, at the most

  // The bytes must outlive the object. Every Error names `source`.
  ByteStream(std::span<const std::byte> bytes, Form form, std::string source);
  ByteStream(const ByteStream&) = delete;
  ByteStream& operator=(const ByteStream&) = delete;

  void read(std::span<std::byte> out);  // throws Error if fewer bytes follow, or the compressed data is damaged
  void skip(uint64_t size);             // likewise
  bool at_end();
  uint64_t position() const { return position_; }  // uncompressed bytes taken so far
  // No more than this many can follow: a length that a file claims is checked before memory is taken for it.
  uint64_t most_left() const;

 private:
  size_t inflate_into(std::span<std::byte> out);  // some bytes of it; 0 only at the end
  bool refill();                                  // gets ready_ bytes; false at the end

  std::string source_;
  std::span<const std::byte> ready_;     // uncompressed
  std::span<const std::byte> deflated_;  // not yet uncompressed
  std::vector<std::byte> buffer_;
  std::unique_ptr<z_stream, int (*)(z_stream*)> inflater_;
  uint64_t position_ = 0;
};

}  // namespace switchyard
