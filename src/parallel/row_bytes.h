// The arguments of an all-to-all of rows, checked and counted in bytes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace switchyard {

// Of a row (axis 0).
int64_t row_bytes(const at::Tensor& rows);

// Throws Error, naming the group, unless `in` and `out` are rows of one shape and dtype, as many as are sent to and
// come from `size` ranks.
void check_all_to_all(const at::Tensor& out, const at::Tensor& in, const std::vector<int64_t>& receive_rows,
                      const std::vector<int64_t>& send_rows, int64_t size, const std::string& group);

std::vector<int64_t> times(std::vector<int64_t> numbers, int64_t factor);

}  // namespace switchyard
