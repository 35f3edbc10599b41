// A tensor in a file, known by its header: read when it is wanted, as far as it is wanted.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/files.h"

namespace switchyard {

struct StoredTensor {
  at::ScalarType dtype = at::kFloat;
  std::vector<int64_t> shape;
  // Copies elements first, first + 1, ... in row-major order into all of `to` (contiguous, on the CPU), converted to
  // its dtype, through a few MiB of memory. Any thread may call it. Throws Error if the file was changed since.
  std::function<void(int64_t first, const at::Tensor& to)> read;
  // Of a quantised matrix, whose values `read` gives: the same as rows of bytes (ops/quantized.h). Else null.
  std::shared_ptr<const StoredTensor> rows = {};

  int64_t numel() const;
  uint64_t nbytes() const;  // as stored
};
using StoredTensors = std::map<std::string, StoredTensor>;

// Row-major elements from byte `offset` on; the caller has checked that the file holds them.
StoredTensor stored_in_file(std::shared_ptr<const InputFile> file, uint64_t offset, at::ScalarType dtype,
                            std::vector<int64_t> shape);
// The same with strides in elements. Reading any part takes memory for all that the strides span.
StoredTensor stored_in_file(std::shared_ptr<const InputFile> file, uint64_t offset, at::ScalarType dtype,
                            std::vector<int64_t> shape, std::vector<int64_t> strides);
StoredTensor stored_in_memory(const at::Tensor& tensor);

// A new tensor of `dtype` with its values.
at::Tensor read_tensor(const StoredTensor& stored, at::ScalarType dtype);

// Of one shape and dtype, with equal values; reads both piece by piece.
bool equal_values(const StoredTensor& left, const StoredTensor& right);

}  // namespace switchyard
