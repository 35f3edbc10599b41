// gzip and zlib data that was compressed in one piece.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace switchyard {

bool is_gzip(std::span<const std::byte> bytes);

// The uncompressed bytes of a gzip or zlib stream. Throws Error naming `source` if it is damaged or gives more than
// `limit`.
std::string inflate(std::span<const std::byte> bytes, uint64_t limit, const std::string& source);

}  // namespace switchyard
