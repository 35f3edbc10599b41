#include "parallel/row_bytes.h"

#include <numeric>

#include "base/error.h"

namespace switchyard {
namespace {

int64_t sum(const std::vector<int64_t>& values) { return std::accumulate(values.begin(), values.end(), int64_t{0}); }

}  // namespace

int64_t row_bytes(const at::Tensor& rows) {
  auto bytes = static_cast<int64_t>(rows.itemsize());
  for (const auto length : rows.sizes().slice(1)) bytes *= length;
  return bytes;
}

void check_all_to_all(const at::Tensor& out, const at::Tensor& in, const std::vector<int64_t>& receive_rows,
                      const std::vector<int64_t>& send_rows, int64_t size, const std::string& group) {
  const auto ranks = static_cast<size_t>(size);
  SY_CHECK(in.dim() > 0 && out.dim() == in.dim() && in.sizes().slice(1) == out.sizes().slice(1) &&
               in.scalar_type() == out.scalar_type(),
           "all-to-all of group ", group, ": expected rows of one shape and dtype, got ", in.sizes(), " ",
           in.scalar_type(), " and ", out.sizes(), " ", out.scalar_type());
  SY_CHECK(send_rows.size() == ranks && receive_rows.size() == ranks && sum(send_rows) == in.size(0) &&
               sum(receive_rows) == out.size(0),
           "all-to-all of group ", group, ": expected rows for each of ", size, " ranks, ", in.size(0), " to send and ",
           out.size(0), " to receive; got ", sum(send_rows), " and ", sum(receive_rows));
}

std::vector<int64_t> times(std::vector<int64_t> numbers, int64_t factor) {
  for (auto& number : numbers) number *= factor;
  return numbers;
}

}  // namespace switchyard
