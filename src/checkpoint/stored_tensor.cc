#include "checkpoint/stored_tensor.h"

#include <ATen/ops/as_strided.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>

#include <algorithm>

namespace switchyard {
namespace {

constexpr int64_t kChunk = int64_t{1} << 20;  // elements

}  // namespace

int64_t StoredTensor::numel() const {
  int64_t product = 1;
  for (const int64_t size : shape) product *= size;
  return product;
}

uint64_t StoredTensor::nbytes() const {
  return rows ? rows->nbytes() : static_cast<uint64_t>(numel()) * c10::elementSize(dtype);
}

StoredTensor stored_in_file(std::shared_ptr<const InputFile> file, uint64_t offset, at::ScalarType dtype,
                            std::vector<int64_t> shape) {
  auto read = [file = std::move(file), offset, dtype](int64_t first, const at::Tensor& to) {
    const uint64_t size = c10::elementSize(dtype);
    const auto at_element = [&](int64_t number) { return offset + static_cast<uint64_t>(number) * size; };
    if (to.scalar_type() == dtype) return file->read(at_element(first), to.mutable_data_ptr(), to.nbytes());
    const auto target = to.view({-1});
    const auto buffer = at::empty({std::min(kChunk, to.numel())}, dtype);
    for (int64_t done = 0; done < to.numel(); done += kChunk) {
      const auto part = buffer.slice(0, 0, std::min(kChunk, to.numel() - done));
      file->read(at_element(first + done), part.mutable_data_ptr(), part.nbytes());
      target.slice(0, done, done + part.numel()).copy_(part);
    }
  };
  return {dtype, std::move(shape), std::move(read)};
}

StoredTensor stored_in_file(std::shared_ptr<const InputFile> file, uint64_t offset, at::ScalarType dtype,
                            std::vector<int64_t> shape, std::vector<int64_t> strides) {
  int64_t row_major = 1, span = 1;
  bool is_row_major = true;
  for (size_t axis = shape.size(); axis-- > 0;) {
    is_row_major &= shape[axis] == 1 || strides[axis] == row_major;
    row_major *= shape[axis];
    span += (shape[axis] - 1) * strides[axis];
  }
  if (is_row_major) return stored_in_file(std::move(file), offset, dtype, std::move(shape));
  auto read = [storage = stored_in_file(std::move(file), offset, dtype, {span}), shape, strides = std::move(strides)](
                  int64_t first, const at::Tensor& to) {
    const auto strided = at::as_strided(read_tensor(storage, storage.dtype), shape, strides);
    to.view({-1}).copy_(strided.reshape({-1}).slice(0, first, first + to.numel()));
  };
  return {dtype, std::move(shape), std::move(read)};
}

StoredTensor stored_in_memory(const at::Tensor& tensor) {
  return {tensor.scalar_type(), tensor.sizes().vec(), [tensor](int64_t first, const at::Tensor& to) {
            if (to.numel() == tensor.numel())
              to.view(tensor.sizes()).copy_(tensor);
            else
              to.view({-1}).copy_(tensor.reshape({-1}).slice(0, first, first + to.numel()));
          }};
}

at::Tensor read_tensor(const StoredTensor& stored, at::ScalarType dtype) {
  auto tensor = at::empty(stored.shape, at::TensorOptions().dtype(dtype));
  if (tensor.numel() > 0) stored.read(0, tensor);
  return tensor;
}

bool equal_values(const StoredTensor& left, const StoredTensor& right) {
  if (left.shape != right.shape || left.dtype != right.dtype) return false;
  const int64_t numel = left.numel();
  const auto buffers = at::empty({2, std::min(kChunk, numel)}, left.dtype);
  for (int64_t first = 0; first < numel; first += kChunk) {
    const int64_t count = std::min(kChunk, numel - first);
    const auto left_part = buffers[0].slice(0, 0, count), right_part = buffers[1].slice(0, 0, count);
    left.read(first, left_part);
    right.read(first, right_part);
    if (!at::equal(left_part, right_part)) return false;
  }
  return true;
}

}  // namespace switchyard
