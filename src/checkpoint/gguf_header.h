// The head of a GGUF file, the format of llama.cpp and of image programs: keys and values, then the tensors' names,
// shapes, types and places. https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "base/files.h"

namespace switchyard {

// As ggml numbers them; those that are read here.
enum class GgufType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ8_0 = 8,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kBF16 = 30
};
struct GgufForm {
  GgufType type;
  const char* name;
  int64_t block_values;  // numbers that stand together
  int64_t block_bytes;
};
const GgufForm& gguf_form(GgufType type);

struct GgufTensor {
  std::string name;
  std::vector<int64_t> shape;  // row-major, as everywhere else: the file has it the other way round
  GgufType type = GgufType::kF32;
  uint64_t offset = 0, bytes = 0;  // in the file
};

// Integers and booleans, fractions, texts, and lists of these.
using GgufValue =
    std::variant<int64_t, double, std::string, std::vector<int64_t>, std::vector<double>, std::vector<std::string>>;

struct GgufHeader {
  std::map<std::string, GgufValue> values;
  std::vector<GgufTensor> tensors;  // by place

  // The key's value, or `otherwise` where it is absent. Throws Error naming `source` and key for one of another type.
  int64_t integer(const std::string& key, const std::string& source, int64_t otherwise) const;
  double number(const std::string& key, const std::string& source, double otherwise) const;
  std::string text(const std::string& key, const std::string& source) const;  // "" where it is absent
};

// Throws Error naming `source` and key or tensor: another format or version, a count or a length beyond the file, a
// name that stands twice, a type or nesting that is not read here, a size that overflows, a tensor that lies outside
// the file or over another. Takes memory in proportion to the head.
GgufHeader read_gguf_header(const InputFile& file, const std::string& source);

bool is_gguf(const std::filesystem::path& path);  // a file that begins as one does

}  // namespace switchyard
