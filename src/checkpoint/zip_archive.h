// The ZIP container, as far as PyTorch writes it: entries stored without compression, ZIP64 for large files.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>

namespace switchyard {

using ZipEntries = std::map<std::string, std::span<const std::byte>>;

// The entries of a whole file's bytes, as views of them. Throws Error naming `source` if it is no ZIP file, is cut
// short, or has a compressed or encrypted entry. Checksums are not verified.
ZipEntries list_zip_entries(std::span<const std::byte> file, const std::string& source);

}  // namespace switchyard
