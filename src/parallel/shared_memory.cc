#include "parallel/shared_memory.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <random>
#include <sstream>

#include "base/error.h"

namespace switchyard {
namespace {

constexpr int64_t kAlignment = 64;
constexpr int64_t kMostRanks = 500;
constexpr int64_t kHeaderBytes = 4096;

// At the beginning of a segment.
struct Header {
  uint64_t token;                         // tells it from another process's file under the same number
  std::atomic<int64_t> read[kMostRanks];  // [rank]: how many messages of this segment it has read, from the first on
};
static_assert(sizeof(Header) <= kHeaderBytes && std::atomic<int64_t>::is_always_lock_free);

// Address space for as much as the machine has: pages come as they are written, and stay for the next message.
int64_t segment_bytes() { return ::sysconf(_SC_PHYS_PAGES) * ::sysconf(_SC_PAGESIZE); }

int64_t aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

bool may_be_as_large() {
  rlimit files{}, addresses{};
  return ::getrlimit(RLIMIT_FSIZE, &files) == 0 && files.rlim_cur == RLIM_INFINITY &&
         ::getrlimit(RLIMIT_AS, &addresses) == 0 && addresses.rlim_cur == RLIM_INFINITY;
}

uint64_t random_token() {
  std::random_device device;
  return (static_cast<uint64_t>(device()) << 32U) | device();
}

}  // namespace

struct SharedMemory::Segment {
  int descriptor = -1;
  int64_t bytes = segment_bytes();
  std::byte* begin = nullptr;

  explicit Segment(int opened) : descriptor(opened) {
    if (descriptor < 0) return;
    void* const place =
        ::mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, descriptor, 0);
    if (place != MAP_FAILED) begin = static_cast<std::byte*>(place);
  }
  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;
  ~Segment() {
    if (begin != nullptr) ::munmap(begin, static_cast<size_t>(bytes));
    if (descriptor >= 0) ::close(descriptor);
  }
  Header& header() const { return *reinterpret_cast<Header*>(begin); }
};

std::unique_ptr<SharedMemory> SharedMemory::open(int64_t rank, int64_t size, const Gather& gather) {
  std::vector<std::unique_ptr<Segment>> segments(static_cast<size_t>(size));
  auto& own = segments[static_cast<size_t>(rank)];
  own = std::make_unique<Segment>(
      may_be_as_large() && size <= kMostRanks ? ::memfd_create("switchyard-messages", MFD_CLOEXEC) : -1);
  const bool is_made = own->descriptor >= 0 && ::ftruncate(own->descriptor, own->bytes) == 0 && own->begin != nullptr;
  const uint64_t token = random_token();
  if (is_made) new (&own->header()) Header{.token = token, .read = {}};
  const auto places = gather("segments", is_made ? join(::getpid(), " ", own->descriptor, " ", token) : "none");
  bool sees_all = true;
  for (int64_t other = 0; other < size; ++other) {
    int64_t process = 0, descriptor = 0;
    uint64_t expected = 0;
    std::istringstream place(places[static_cast<size_t>(other)]);
    if (!(place >> process >> descriptor >> expected)) sees_all = false;
    if (!sees_all || other == rank) continue;
    auto& segment = segments[static_cast<size_t>(other)];
    segment =
        std::make_unique<Segment>(::open(join("/proc/", process, "/fd/", descriptor).c_str(), O_RDWR | O_CLOEXEC));
    if (segment->begin == nullptr || segment->header().token != expected) sees_all = false;
  }
  const auto answers = gather("segments seen", sees_all ? "yes" : "no");
  if (std::find(answers.begin(), answers.end(), "no") != answers.end()) return nullptr;
  return std::unique_ptr<SharedMemory>(new SharedMemory(rank, std::move(segments)));
}

SharedMemory::SharedMemory(int64_t rank, std::vector<std::unique_ptr<Segment>> segments)
    : rank_(rank), segments_(std::move(segments)) {}
SharedMemory::~SharedMemory() = default;

void SharedMemory::free_what_was_read() {
  const auto& header = segments_[static_cast<size_t>(rank_)]->header();
  int64_t read = num_read();
  for (size_t other = 0; other < segments_.size(); ++other)
    if (static_cast<int64_t>(other) != rank_) read = std::min(read, header.read[other].load(std::memory_order_acquire));
  std::erase_if(blocks_,
                [read](const auto& block) { return block.second.message >= 0 && block.second.message < read; });
}

// First fit: messages of a step come in the same order and sizes as those of the last one.
int64_t SharedMemory::reserve(int64_t bytes) {
  free_what_was_read();
  int64_t offset = kHeaderBytes;
  for (const auto& [begin, block] : blocks_) {
    if (begin - offset >= bytes) break;
    offset = begin + aligned(block.bytes);
  }
  SY_CHECK(offset + bytes <= segments_[static_cast<size_t>(rank_)]->bytes, "a message of ", bytes,
           " bytes does not fit into this machine's memory");
  blocks_[offset] = {.bytes = std::max<int64_t>(bytes, 1)};
  return offset;
}

at::Tensor SharedMemory::room(int64_t numel, at::ScalarType dtype) {
  const int64_t offset = reserve(numel * static_cast<int64_t>(c10::elementSize(dtype)));
  return at::from_blob(segments_[static_cast<size_t>(rank_)]->begin + offset, {numel}, at::TensorOptions(dtype));
}

SharedMemory::Message SharedMemory::send(const at::Tensor& out, const at::Tensor& in,
                                         const std::vector<int64_t>& receive_bytes,
                                         const std::vector<int64_t>& send_bytes) {
  std::byte* const begin = segments_[static_cast<size_t>(rank_)]->begin;
  const auto* const data = static_cast<const std::byte*>(in.const_data_ptr());
  const auto lies_at = [&](const auto& block) { return begin + block.first == data; };
  const auto made_here = std::find_if(blocks_.begin(), blocks_.end(), lies_at);
  int64_t offset = made_here != blocks_.end() ? made_here->first : reserve(static_cast<int64_t>(in.nbytes()));
  if (made_here == blocks_.end() && in.nbytes() > 0) std::memcpy(begin + offset, data, in.nbytes());
  const auto size = static_cast<int64_t>(segments_.size());
  Message message{.number = next_message_++,
                  .out = out,
                  .places = at::empty({size, 2}, at::kLong),
                  .told = at::empty({size, 2}, at::kLong),
                  .receive_bytes = receive_bytes};
  blocks_[offset].message = message.number;
  unread_.insert(message.number);
  auto* const places = message.places.mutable_data_ptr<int64_t>();
  for (size_t other = 0; other < segments_.size(); ++other) {
    places[2 * other] = offset;
    places[2 * other + 1] = send_bytes[other];
    offset += send_bytes[other];
  }
  return message;
}

// Of what rank `other` has sent.
std::byte* SharedMemory::place_of(const Message& message, size_t other) const {
  const auto* const told = message.told.const_data_ptr<int64_t>();
  const int64_t offset = told[2 * other], bytes = told[2 * other + 1];
  SY_CHECK(bytes == message.receive_bytes[other] && offset >= kHeaderBytes && offset <= segments_[other]->bytes - bytes,
           "all-to-all: rank ", other, " of the group sends ", bytes, " bytes, ", message.receive_bytes[other],
           " were expected");
  return segments_[other]->begin + offset;
}

void SharedMemory::receive(const Message& message) {
  auto* to = static_cast<std::byte*>(message.out.mutable_data_ptr());
  for (size_t other = 0; other < segments_.size(); ++other) {
    const auto* const from = place_of(message, other);
    const int64_t bytes = message.receive_bytes[other];
    if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
    to += bytes;
  }
  release(message);
}

std::vector<at::Tensor> SharedMemory::look(const Message& message, at::ScalarType dtype) const {
  std::vector<at::Tensor> parts;
  for (size_t other = 0; other < segments_.size(); ++other)
    parts.push_back(at::from_blob(place_of(message, other),
                                  {message.receive_bytes[other] / static_cast<int64_t>(c10::elementSize(dtype))},
                                  at::TensorOptions(dtype)));
  return parts;
}

void SharedMemory::release(const Message& message) {
  unread_.erase(message.number);
  for (size_t other = 0; other < segments_.size(); ++other)
    if (static_cast<int64_t>(other) != rank_)
      segments_[other]->header().read[rank_].store(num_read(), std::memory_order_release);
}

int64_t SharedMemory::num_read() const { return unread_.empty() ? next_message_ : *unread_.begin(); }

}  // namespace switchyard
