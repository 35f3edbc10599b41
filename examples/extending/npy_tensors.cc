#include "npy_tensors.h"

#include <algorithm>
#include <cstring>
#include <regex>

#include "base/error.h"

namespace switchyard::examples {
namespace {

constexpr size_t kBeginBytes = 10;  // magic, version, length of the header
constexpr char kBegin[] = "\x93NUMPY\x01\x00";
constexpr uint64_t kMaxNumel = uint64_t{1} << 40;

StoredTensor list_file(const std::filesystem::path& path) {
  const auto file = std::make_shared<InputFile>(path);
  const std::string place = path.string() + ": ";
  // Nothing is trusted before it was compared with the file's size, and nothing allocated by what the file says.
  SY_CHECK(file->size() >= kBeginBytes, place, "expected a NumPy array, but it has ", file->size(), " bytes");
  unsigned char begin[kBeginBytes];
  file->read(0, begin, sizeof(begin));
  SY_CHECK(std::memcmp(begin, kBegin, 8) == 0, place, "expected a NumPy array of format 1.0");
  const uint64_t data = kBeginBytes + begin[8] + 256U * begin[9];
  SY_CHECK(data <= file->size(), place, "the header is cut short");
  std::string header(data - kBeginBytes, ' ');
  file->read(kBeginBytes, header.data(), header.size());
  static const std::regex kHeader(
      R"(\{'descr': '<f([48])', 'fortran_order': False, 'shape': \(((\d{1,12}, ?)*(\d{1,12})?)\), \}\s*)");
  std::smatch parts;
  SY_CHECK(std::regex_match(header, parts, kHeader), place, "expected f32 or f64 in C order, got ",
           header.substr(0, 128));
  std::vector<int64_t> shape;
  uint64_t numel = 1;
  const std::string list = parts[2];
  static const std::regex kNumber(R"(\d+)");
  for (std::sregex_iterator number(list.begin(), list.end(), kNumber), none; number != none; ++number) {
    shape.push_back(std::stoll(number->str()));
    SY_CHECK(shape.back() == 0 || numel <= kMaxNumel / static_cast<uint64_t>(shape.back()), place, "too many elements");
    numel *= static_cast<uint64_t>(shape.back());
  }
  const bool wide = parts[1] == "8";
  SY_CHECK(file->size() - data == numel * (wide ? 8 : 4), place, numel, " elements announced, ", file->size() - data,
           " bytes there");
  return stored_in_file(file, data, wide ? at::kDouble : at::kFloat, shape);
}

}  // namespace

StoredTensors list_npy(const std::filesystem::path& folder) {
  StoredTensors tensors;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().extension() == ".npy") tensors[entry.path().stem().string()] = list_file(entry.path());
  SY_CHECK(!tensors.empty(), folder.string(), ": no .npy file in it");
  return tensors;
}

}  // namespace switchyard::examples
