// The parts of a process group that need nothing of c10d.
#include <ATen/ops/empty.h>

#include <numeric>
#include <utility>

#include "parallel/process_group.h"
#include "parallel/row_bytes.h"

namespace switchyard {

PendingParts& PendingParts::operator=(PendingParts&& other) noexcept {
  std::swap(memory_, other.memory_);
  std::swap(message_, other.message_);
  std::swap(dtype_, other.dtype_);
  std::swap(pending_, other.pending_);
  std::swap(parts_, other.parts_);
  return *this;
}

PendingParts::~PendingParts() {
  if (memory_ && !parts_.empty()) memory_->release(message_);
}

const std::vector<at::Tensor>& PendingParts::wait() {
  pending_.wait();
  if (parts_.empty())
    parts_ = memory_ ? memory_->look(message_, dtype_) : message_.out.split_with_sizes(message_.receive_bytes);
  return parts_;
}

void ProcessGroup::all_reduce(const at::Tensor& tensor) const { start_all_reduce(tensor).wait(); }

void ProcessGroup::all_to_all(const at::Tensor& out, const at::Tensor& in, const std::vector<int64_t>& receive_rows,
                              const std::vector<int64_t>& send_rows) const {
  start_all_to_all(out, in, receive_rows, send_rows).wait();
}

PendingParts ProcessGroup::start_exchange(const at::Tensor& in, const std::vector<int64_t>& receive_numel,
                                          const std::vector<int64_t>& send_numel) const {
  PendingParts parts;
  parts.dtype_ = in.scalar_type();
  parts.memory_ = memory();
  if (!parts.memory_) {
    const int64_t numel = std::accumulate(receive_numel.begin(), receive_numel.end(), int64_t{0});
    parts.message_.out = at::empty({numel}, in.options());
    parts.message_.receive_bytes = receive_numel;
    parts.pending_ = start_all_to_all(parts.message_.out, in, receive_numel, send_numel);
    return parts;
  }
  const auto bytes = static_cast<int64_t>(in.itemsize());
  parts.message_ = parts.memory_->send({}, in, times(receive_numel, bytes), times(send_numel, bytes));
  const int64_t away = in.numel() - send_numel[static_cast<size_t>(rank())];
  parts.pending_ = start_message(parts.message_, bytes * away, {});
  return parts;
}

}  // namespace switchyard
