// Messages between ranks of one machine through memory instead of sockets. Each rank writes into a segment of its own,
// which the others of its group map for reading. Where a message lies travels by a collective of the group, which also
// waits and fails for it; that everybody has read it is counted in the segment, whose room is then free again.
//
// A segment has no name that others could meet or that outlives its processes: it is a descriptor (memfd_create), which
// the others open through /proc.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace switchyard {

class SharedMemory {
 public:
  // Every rank's text, by rank.
  using Gather = std::function<std::vector<std::string>(const std::string& name, const std::string& mine)>;

  // Of a group, all of whose ranks call it. Null on all of them if one cannot map another's segment: on several
  // machines, in containers that do not see each other's processes, or under limits of memory or files.
  static std::unique_ptr<SharedMemory> open(int64_t rank, int64_t size, const Gather& gather);
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  // Room in this rank's segment for one message, which then needs no copy. Uninitialised; not to be touched after it is
  // sent. [numel]
  at::Tensor room(int64_t numel, at::ScalarType dtype);

  // An all-to-all in flight. places [size, 2] i64 (offset and bytes) is to be exchanged into `told`, row r to rank r.
  struct Message {
    int64_t number = 0;
    at::Tensor out, places, told;        // out: undefined where nothing is copied
    std::vector<int64_t> receive_bytes;  // [rank]
  };
  // Of `in`, send_bytes[r] to rank r, in order; `out` takes receive_bytes[r] from rank r. Contiguous.
  Message send(const at::Tensor& out, const at::Tensor& in, const std::vector<int64_t>& receive_bytes,
               const std::vector<int64_t>& send_bytes);
  // Fills in `out`, once `told` is there. Throws Error if a rank has sent another number of bytes.
  void receive(const Message& message);

  // The same without `out`: what each rank has sent lies where it is until release(). [rank][numel] of `dtype`
  std::vector<at::Tensor> look(const Message& message, at::ScalarType dtype) const;
  void release(const Message& message);

 private:
  struct Segment;
  struct Block {
    int64_t bytes = 0;
    int64_t message = -1;  // that lies there; -1: not sent yet
  };
  SharedMemory(int64_t rank, std::vector<std::unique_ptr<Segment>> segments);
  int64_t reserve(int64_t bytes);
  std::byte* place_of(const Message& message, size_t other) const;
  void free_what_was_read();
  int64_t num_read() const;  // messages, from the first on

  int64_t rank_;
  std::vector<std::unique_ptr<Segment>> segments_;  // [rank]
  std::map<int64_t, Block> blocks_;                 // by offset
  int64_t next_message_ = 0;
  std::set<int64_t> unread_;  // messages that this rank has not received yet
};

}  // namespace switchyard
