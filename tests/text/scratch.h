// Files for tests of readers: compressed content, and the shared data where it is.
#pragma once

#include <gtest/gtest.h>
#include <zlib.h>
#include <zstd.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>

#include "testing/errors.h"
#include "testing/scratch_folder.h"

namespace switchyard {

using test::ScratchFolder;

inline std::string gzip(std::string_view text) {
  z_stream stream{};
  deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&stream, text.size()) + 32, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(out.size() - stream.avail_out);
  deflateEnd(&stream);
  return out;
}

inline std::string zstd(std::string_view text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
  return out;
}

using test::error_of;

// Folder of shared data, or an empty path where it is absent.
inline std::filesystem::path data_folder() {
  const char* folder = std::getenv("SWITCHYARD_DATA");
  const std::filesystem::path path = folder == nullptr ? "" : folder;
  return std::filesystem::exists(path / "testvectors") ? path : "";
}

}  // namespace switchyard

#define SKIP_WITHOUT_DATA() \
  if (::switchyard::data_folder().empty()) GTEST_SKIP() << "set SWITCHYARD_DATA to the folder of shared test data"
