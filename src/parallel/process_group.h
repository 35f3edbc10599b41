// Ranks that compute together, and what they send each other. process_group.cc is the one unit that includes c10d.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "parallel/collective_failure.h"
#include "parallel/launch.h"
#include "parallel/shared_memory.h"

namespace switchyard {

// A collective in flight, which holds its tensors. One that is destroyed without wait(), while an exception passes,
// goes on without anybody waiting for it; the destructor neither blocks nor throws.
class PendingCollective {
 public:
  PendingCollective();  // one that has ended
  PendingCollective(PendingCollective&&) noexcept;
  PendingCollective& operator=(PendingCollective&&) noexcept;
  ~PendingCollective();
  // Returns when the results are in their tensors; at once the second time. Throws CollectiveFailure.
  void wait();

 private:
  friend class ProcessGroup;
  struct Work;
  explicit PendingCollective(std::unique_ptr<Work> work);
  std::unique_ptr<Work> work_;
};

// What every rank has sent, in flight; it is not copied where memory is shared.
class PendingParts {
 public:
  PendingParts() = default;
  PendingParts(PendingParts&&) noexcept = default;
  PendingParts& operator=(PendingParts&& other) noexcept;
  ~PendingParts();  // the parts are gone then; else as PendingCollective's

  // [rank][numel], for reading, while this lives. At once the second time. Throws CollectiveFailure.
  const std::vector<at::Tensor>& wait();

 private:
  friend class ProcessGroup;
  std::shared_ptr<SharedMemory> memory_;  // null: everything comes into message_.out
  SharedMemory::Message message_;
  at::ScalarType dtype_ = at::kFloat;
  PendingCollective pending_;
  std::vector<at::Tensor> parts_;
};

struct GroupOptions {
  double timeout_seconds = 120.0;  // longest wait of a collective for its slowest rank
  double meeting_seconds = 120.0;  // longest wait for all ranks of a group to be there at its start
  double beat_seconds = 1.0;       // how often each rank says that it is alive
  at::Device device = at::kCPU;    // where the tensors are. CPU: Gloo
  bool shares_memory = true;       // all-to-alls of ranks of one machine by memory that they share, where they can
};

// Bytes that this rank sends to others. An all-reduce counts as a ring's, 2 (n - 1) / n of its tensor; a broadcast as
// n - 1 times its tensor, by the root.
struct WireBytes {
  int64_t all_to_all = 0, all_reduce = 0, broadcast = 0;
};

// All ranks of a group call the same collectives in the same order, with tensors of the same shape and dtype but where
// it says otherwise. Tensors are contiguous, on the group's device. Every collective throws CollectiveFailure where
// ranks fail or do not come within the timeout, and Error on other tensors. In a group of one all of it is local.
class ProcessGroup {
 public:
  // The world: every rank of the launch. From here on SIGPIPE is ignored. Throws CollectiveFailure where ranks do not
  // come within the timeout, Error if the device's collectives are not in this build.
  static std::unique_ptr<ProcessGroup> connect(const Launch& launch, const GroupOptions& options = {});

  ~ProcessGroup();
  ProcessGroup(const ProcessGroup&) = delete;
  ProcessGroup& operator=(const ProcessGroup&) = delete;

  // A part of this group: `ranks` of it, ascending, which all of them call and only they. `name` is unique in the run
  // and the same on all of them.
  std::unique_ptr<ProcessGroup> subgroup(const std::string& name, const std::vector<int64_t>& ranks) const;

  int64_t rank() const;  // within this group
  int64_t size() const;
  int64_t world_rank(int64_t rank) const;
  const std::string& name() const;

  // Sum over ranks, in place, in the tensor's dtype (f32, f64, bf16, i64): bf16 is summed in bf16.
  void all_reduce(const at::Tensor& tensor) const;
  PendingCollective start_all_reduce(const at::Tensor& tensor) const;
  void all_reduce_max(const at::Tensor& tensor) const;

  void broadcast(const at::Tensor& tensor, int64_t root) const;

  // Rows (axis 0) of `in` to ranks: send_rows[r] of them to rank r, in order. `out` takes receive_rows[r] rows from
  // rank r, in order; what r sends to here is that many rows.
  void all_to_all(const at::Tensor& out, const at::Tensor& in, const std::vector<int64_t>& receive_rows,
                  const std::vector<int64_t>& send_rows) const;
  PendingCollective start_all_to_all(const at::Tensor& out, const at::Tensor& in,
                                     const std::vector<int64_t>& receive_rows,
                                     const std::vector<int64_t>& send_rows) const;

  // The same of single elements, `in` [numel].
  PendingParts start_exchange(const at::Tensor& in, const std::vector<int64_t>& receive_numel,
                              const std::vector<int64_t>& send_numel) const;

  // Room for `in` of one of these, [numel], where it need not be copied if memory is shared. Uninitialised; not to be
  // touched once it is sent.
  at::Tensor room_to_send(int64_t numel, at::ScalarType dtype) const;

  void barrier() const;

  // What every rank says about itself, by rank. Through the store that the ranks met at: for small texts, rarely.
  std::vector<std::string> gather_text(const std::string& name, const std::string& mine) const;

  WireBytes wire_bytes() const;  // since connect(), by this rank, over the world and all parts of it

 private:
  friend class PendingCollective;
  struct World;
  struct Members;
  ProcessGroup(std::shared_ptr<World> world, std::shared_ptr<const Members> members);
  const std::shared_ptr<SharedMemory>& memory() const;
  // A message that lies in shared memory; `finish` is called in wait().
  PendingCollective start_message(const SharedMemory::Message& message, int64_t wire_bytes,
                                  std::function<void()> finish) const;
  PendingCollective start_reduction(const char* kind, const at::Tensor& tensor, bool is_max) const;
  // At once ended in a group of one.
  template <class Begin>
  PendingCollective start(const char* kind, std::vector<at::Tensor> tensors, Begin begin,
                          std::function<void()> finish = {}) const;
  std::shared_ptr<World> world_;
  std::shared_ptr<const Members> members_;
};

}  // namespace switchyard
