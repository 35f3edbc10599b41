#include "parallel/process_group.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/util/Flags.h>
#include <c10/util/Logging.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <functional>
#include <numeric>
#include <set>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "base/clock.h"
#include "base/error.h"
#include "parallel/bounded_call.h"
#include "parallel/heartbeat.h"
#include "parallel/row_bytes.h"
#include "parallel/texts.h"

C10_DECLARE_int(caffe2_log_level);

namespace switchyard {
namespace {

using Backend = c10::intrusive_ptr<c10d::Backend>;
using Store = c10::intrusive_ptr<c10d::Store>;

constexpr double kGraceSeconds = 5.0;  // beyond a timeout that libraries are to keep
constexpr auto kSlice = std::chrono::milliseconds(250);
constexpr double kBeatsUntilWatch = 2.0;

std::chrono::milliseconds milliseconds(double s) { return std::chrono::milliseconds(std::llround(1e3 * s)); }

class C10dStore final : public TextStore {
 public:
  explicit C10dStore(Store store) : store_(std::move(store)) {}
  void set(const std::string& key, const std::string& value) override { store_->set(key, bytes(value)); }
  std::optional<std::string> find(const std::string& key) override {
    if (!store_->check({key})) return std::nullopt;
    return text(store_->get(key));
  }
  std::string set_if_absent(const std::string& key, const std::string& value) override {
    return text(store_->compareSet(key, {}, bytes(value)));
  }

 private:
  static std::vector<uint8_t> bytes(const std::string& value) { return {value.begin(), value.end()}; }
  static std::string text(const std::vector<uint8_t>& value) { return {value.begin(), value.end()}; }
  Store store_;
};

// The keys belong to this start alone: those that an earlier start has left would mislead the ranks.
Store connect_store(const Launch& launch, double seconds, bool as_server) {
  c10d::TCPStoreOptions options;
  options.port = static_cast<std::uint16_t>(launch.store_port);
  options.isServer = as_server;
  options.waitWorkers = false;
  options.timeout = milliseconds(seconds);
  try {
    const auto store = bounded_call<Store>(seconds + kGraceSeconds, [=, host = launch.store_host] {
      return c10::make_intrusive<c10d::TCPStore>(host, options);
    });
    return c10::make_intrusive<c10d::PrefixStore>(join("start-", launch.restart), store);
  } catch (const std::exception& error) {
    SY_CHECK(!as_server, "rank 0 cannot listen at port ", launch.store_port,
             ", where the ranks are to meet: ", summary(error), "; set MASTER_PORT to a free port");
    throw CollectiveFailure(join("rank ", launch.rank, " of ", launch.num_ranks, ": ", store_holder(launch),
                                 " has not answered within ", seconds, " s: it has not started, or cannot be reached [",
                                 summary(error), "]"));
  }
}

Backend make_gloo(const Store& store, int64_t rank, int64_t size, bool one_machine, double timeout_seconds) {
  using c10d::ProcessGroupGloo;
  auto options = ProcessGroupGloo::Options::create(milliseconds(timeout_seconds));
  // Ranks of one machine need no name of it that resolves.
  if (one_machine && std::getenv("GLOO_SOCKET_IFNAME") == nullptr) {
    options->devices.push_back(ProcessGroupGloo::createDeviceForHostname("127.0.0.1"));
  } else {
    options = ProcessGroupGloo::Options::create_default(milliseconds(timeout_seconds));
  }
  return c10::make_intrusive<ProcessGroupGloo>(store, static_cast<int>(rank), static_cast<int>(size), options);
}

// receive and send: rows from and to each rank; empty: equal parts. By value, as c10d moves from what it is given.
c10::intrusive_ptr<c10d::Work> begin_all_to_all(c10d::Backend& backend, at::Tensor out, at::Tensor in,
                                                std::vector<int64_t> receive, std::vector<int64_t> send) {
  return backend.alltoall_base(out, in, receive, send);
}

}  // namespace

struct ProcessGroup::Members {
  std::string name;
  std::vector<int64_t> world_ranks;
  int64_t rank = 0;
  Backend backend;                       // none in a group of one
  std::shared_ptr<SharedMemory> memory;  // null where messages go by the backend alone
  int64_t size() const { return static_cast<int64_t>(world_ranks.size()); }
};

struct ProcessGroup::World {
  Launch launch;
  GroupOptions options;
  Store store;
  std::unique_ptr<Heartbeat> heartbeat;  // none in a world of one
  std::vector<Backend> backends;         // of all groups: sockets close when all ranks have ended
  std::set<std::string> names;
  std::atomic<bool> is_abandoned = false;  // a collective goes on that nobody waits for
  std::atomic<int64_t> all_to_all_bytes = 0, all_reduce_bytes = 0, broadcast_bytes = 0;
  int exceptions_before = std::uncaught_exceptions();

  World(const Launch& start, const GroupOptions& how) : launch(start), options(how) {}
  World(const World&) = delete;
  World& operator=(const World&) = delete;
  ~World() {
    if (!heartbeat) return;
    const bool has_error = std::uncaught_exceptions() > exceptions_before;
    if (has_error && !heartbeat->failed()) heartbeat->end_with_error();
    const bool is_clean = !has_error && !heartbeat->failed() && !is_abandoned;
    heartbeat.reset();
    // The destructor would wait for collectives that cannot end.
    for (auto& backend : backends)
      if (!is_clean) backend.release();
  }

  [[noreturn]] void fail(const Members& members, const CollectivePlace& place, double seconds,
                         const std::string& what) {
    const auto cause = heartbeat->diagnose(place, members.world_ranks);
    throw CollectiveFailure(join("rank ", launch.rank, " of ", launch.num_ranks, ": ", describe(place),
                                 " failed after ", 0.1 * std::round(10.0 * seconds), " s: ", cause,
                                 what.empty() ? "" : " [" + what + "]"));
  }

  // Every rank's text, by rank of the group.
  std::vector<std::string> gather(const Members& members, const std::string& kind, const std::string& mine,
                                  double seconds) {
    if (members.size() == 1) return {mine};
    const auto place = heartbeat->start(kind, members.name);
    heartbeat->enter(place);
    const auto begin = steady_seconds();
    auto texts = heartbeat->gather(join("text/", members.name, "/", place.number, "/"), members.rank, members.size(),
                                   mine, seconds);
    if (!texts) fail(members, place, steady_seconds() - begin, "");
    heartbeat->leave();
    return *texts;
  }

  std::unique_ptr<ProcessGroup> make_group(Members members) {
    SY_CHECK(names.insert(members.name).second, "process group ", members.name,
             ": this rank is in one of that name already");
    if (members.size() > 1) {
      gather(members, "meeting", "here", options.meeting_seconds);
      const auto prefix = c10::make_intrusive<c10d::PrefixStore>("group-" + members.name, store);
      const auto begin = steady_seconds();
      try {
        members.backend =
            bounded_call<Backend>(options.timeout_seconds + kGraceSeconds,
                                  [=, one_machine = launch.one_machine(), seconds = options.timeout_seconds] {
                                    return make_gloo(prefix, members.rank, members.size(), one_machine, seconds);
                                  });
      } catch (const std::exception& error) {
        fail(members, heartbeat->start("connecting", members.name), steady_seconds() - begin, summary(error));
      }
      backends.push_back(members.backend);
      if (launch.one_machine() && options.shares_memory && options.device.is_cpu())
        members.memory = SharedMemory::open(members.rank, members.size(), [&](const auto& name, const auto& mine) {
          return gather(members, "exchange of " + name, mine, options.meeting_seconds);
        });
    }
    return std::unique_ptr<ProcessGroup>(
        new ProcessGroup(nullptr, std::make_shared<const Members>(std::move(members))));
  }
};

struct PendingCollective::Work {
  std::shared_ptr<ProcessGroup::World> world;
  std::shared_ptr<const ProcessGroup::Members> members;
  CollectivePlace place;
  c10::intrusive_ptr<c10d::Work> work;
  std::vector<at::Tensor> tensors;
  std::function<void()> finish;  // what is left to do once it has ended

  Work(std::shared_ptr<ProcessGroup::World> all, std::shared_ptr<const ProcessGroup::Members> group,
       CollectivePlace where, c10::intrusive_ptr<c10d::Work> what, std::vector<at::Tensor> held,
       std::function<void()> last)
      : world(std::move(all)),
        members(std::move(group)),
        place(std::move(where)),
        work(std::move(what)),
        tensors(std::move(held)),
        finish(std::move(last)) {}
  Work(const Work&) = delete;
  Work& operator=(const Work&) = delete;
  ~Work() {
    if (!work->isCompleted()) world->is_abandoned = true;
  }

  // Whether it has ended, within a slice of time; with its error.
  bool has_ended(std::string& error) const {
    try {
      work->wait(kSlice);
      return true;
    } catch (const std::exception& thrown) {
      if (!work->isCompleted()) return false;
      if (work->exception()) error = summary(thrown);
      return true;
    }
  }

  void wait() const {
    auto& heartbeat = *world->heartbeat;
    const auto begin = steady_seconds();
    const auto seconds = [&] { return steady_seconds() - begin; };
    std::string error;
    heartbeat.enter(place);
    while (!has_ended(error)) {
      if (heartbeat.failed() || seconds() > world->options.timeout_seconds + kGraceSeconds) error = "still waiting";
      if (!error.empty()) break;
      if (seconds() > kBeatsUntilWatch * world->options.beat_seconds) heartbeat.watch();
    }
    if (!error.empty()) world->fail(*members, place, seconds(), error);
    heartbeat.leave();
    if (finish) finish();
  }
};

PendingCollective::PendingCollective() = default;
PendingCollective::PendingCollective(std::unique_ptr<Work> work) : work_(std::move(work)) {}
PendingCollective::PendingCollective(PendingCollective&&) noexcept = default;
PendingCollective& PendingCollective::operator=(PendingCollective&&) noexcept = default;
PendingCollective::~PendingCollective() = default;

void PendingCollective::wait() {
  if (!work_) return;
  const auto work = std::move(work_);
  work->wait();
}

ProcessGroup::ProcessGroup(std::shared_ptr<World> world, std::shared_ptr<const Members> members)
    : world_(std::move(world)), members_(std::move(members)) {}
ProcessGroup::~ProcessGroup() = default;

std::unique_ptr<ProcessGroup> ProcessGroup::connect(const Launch& launch, const GroupOptions& options) {
  SY_CHECK(launch.num_ranks == 1 || options.device.is_cpu(), "several ranks on ", options.device,
           ": NCCL, the collectives of GPUs, is not in this build; use --device cpu, or one rank");
  // c10d warns of each connection that ends, with a page of addresses; what matters of it becomes an error here.
  if (std::getenv("TORCH_CPP_LOG_LEVEL") == nullptr) FLAGS_caffe2_log_level = c10::GLOG_ERROR;
  // A store that is gone is an error, not the end of the process.
  std::signal(SIGPIPE, SIG_IGN);
  const auto world = std::make_shared<World>(launch, options);
  if (launch.num_ranks > 1) {
    const bool holds_store = launch.rank == 0 && !launch.agent_hosts_store;
    world->store = connect_store(launch, options.meeting_seconds, holds_store);
    auto beats = std::make_shared<C10dStore>(connect_store(launch, options.meeting_seconds, false));
    world->heartbeat =
        std::make_unique<Heartbeat>(std::move(beats), HeartbeatOptions{.rank = launch.rank,
                                                                       .num_ranks = launch.num_ranks,
                                                                       .beat_seconds = options.beat_seconds,
                                                                       .holder = store_holder(launch),
                                                                       .holds_store = holds_store});
  }
  Members members;
  members.name = "world";
  members.rank = launch.rank;
  members.world_ranks.resize(launch.num_ranks);
  std::iota(members.world_ranks.begin(), members.world_ranks.end(), int64_t{0});
  auto group = world->make_group(std::move(members));
  group->world_ = world;
  return group;
}

std::unique_ptr<ProcessGroup> ProcessGroup::subgroup(const std::string& name, const std::vector<int64_t>& ranks) const {
  Members members;
  members.name = name;
  int64_t last = -1;
  for (const auto rank : ranks) {
    SY_CHECK(last < rank && rank < size(), "process group ", name, ": rank ", rank, " after ", last,
             ", expected ascending ranks below ", size());
    if (rank == this->rank()) members.rank = members.size();
    members.world_ranks.push_back(world_rank(rank));
    last = rank;
  }
  SY_CHECK(std::find(ranks.begin(), ranks.end(), rank()) != ranks.end(), "process group ", name, ": rank ", rank(),
           " is not in it and may not make it");
  auto group = world_->make_group(std::move(members));
  group->world_ = world_;
  return group;
}

int64_t ProcessGroup::rank() const { return members_->rank; }
int64_t ProcessGroup::size() const { return members_->size(); }
int64_t ProcessGroup::world_rank(int64_t rank) const { return members_->world_ranks.at(rank); }
const std::string& ProcessGroup::name() const { return members_->name; }

template <class Begin>
PendingCollective ProcessGroup::start(const char* kind, std::vector<at::Tensor> tensors, Begin begin,
                                      std::function<void()> finish) const {
  for (const auto& tensor : tensors)
    SY_CHECK(tensor.is_contiguous() && tensor.device().type() == world_->options.device.type(), kind, " of group ",
             name(), ": expected contiguous tensors on ", world_->options.device, ", got ", tensor.sizes(), " on ",
             tensor.device());
  if (size() == 1) return {};
  const auto place = world_->heartbeat->start(kind, name());
  if (world_->heartbeat->failed()) world_->fail(*members_, place, 0.0, "");
  c10::intrusive_ptr<c10d::Work> work;
  try {
    work = begin(*members_->backend);
  } catch (const std::exception& error) {
    world_->fail(*members_, place, 0.0, summary(error));
  }
  return PendingCollective(std::make_unique<PendingCollective::Work>(world_, members_, place, std::move(work),
                                                                     std::move(tensors), std::move(finish)));
}

PendingCollective ProcessGroup::start_reduction(const char* kind, const at::Tensor& tensor, bool is_max) const {
  const auto type = tensor.scalar_type();
  SY_CHECK(type == at::kFloat || type == at::kDouble || type == at::kBFloat16 || type == at::kLong, kind, " of group ",
           name(), ": expected f32, f64, bf16 or i64, got ", type);
  if (tensor.numel() == 0) return {};
  world_->all_reduce_bytes += 2 * (size() - 1) * static_cast<int64_t>(tensor.nbytes()) / size();
  return start(kind, {tensor}, [&](c10d::Backend& backend) {
    std::vector<at::Tensor> tensors{tensor};
    c10d::AllreduceOptions options;
    options.reduceOp = is_max ? c10d::ReduceOp::MAX : c10d::ReduceOp::SUM;
    return backend.allreduce(tensors, options);
  });
}

PendingCollective ProcessGroup::start_all_reduce(const at::Tensor& tensor) const {
  return start_reduction("all-reduce", tensor, false);
}
void ProcessGroup::all_reduce_max(const at::Tensor& tensor) const { start_reduction("maximum", tensor, true).wait(); }

void ProcessGroup::broadcast(const at::Tensor& tensor, int64_t root) const {
  SY_CHECK(0 <= root && root < size(), "broadcast of group ", name(), ": root ", root, ", expected a rank below ",
           size());
  if (tensor.numel() == 0) return;
  if (root == rank()) world_->broadcast_bytes += (size() - 1) * static_cast<int64_t>(tensor.nbytes());
  start("broadcast", {tensor}, [&](c10d::Backend& backend) {
    std::vector<at::Tensor> tensors{tensor};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    return backend.broadcast(tensors, options);
  }).wait();
}

const std::shared_ptr<SharedMemory>& ProcessGroup::memory() const { return members_->memory; }

PendingCollective ProcessGroup::start_message(const SharedMemory::Message& message, int64_t wire_bytes,
                                              std::function<void()> finish) const {
  world_->all_to_all_bytes += wire_bytes;
  return start(
      "all-to-all", {message.told, message.places},
      [&](c10d::Backend& backend) { return begin_all_to_all(backend, message.told, message.places, {}, {}); },
      std::move(finish));
}

PendingCollective ProcessGroup::start_all_to_all(const at::Tensor& out, const at::Tensor& in,
                                                 const std::vector<int64_t>& receive_rows,
                                                 const std::vector<int64_t>& send_rows) const {
  check_all_to_all(out, in, receive_rows, send_rows, size(), name());
  const int64_t bytes = row_bytes(in), wire_bytes = bytes * (in.size(0) - send_rows[rank()]);
  if (size() == 1) out.copy_(in);
  if (memory() && in.is_contiguous() && out.is_contiguous()) {
    const auto message = memory()->send(out, in, times(receive_rows, bytes), times(send_rows, bytes));
    return start_message(message, wire_bytes, [memory = memory(), message] { memory->receive(message); });
  }
  world_->all_to_all_bytes += wire_bytes;
  return start("all-to-all", {out, in},
               [&](c10d::Backend& backend) { return begin_all_to_all(backend, out, in, receive_rows, send_rows); });
}

at::Tensor ProcessGroup::room_to_send(int64_t numel, at::ScalarType dtype) const {
  return members_->memory ? members_->memory->room(numel, dtype)
                          : at::empty({numel}, at::TensorOptions(dtype).device(world_->options.device));
}

void ProcessGroup::barrier() const {
  start("barrier", {}, [](c10d::Backend& backend) { return backend.barrier(); }).wait();
}

std::vector<std::string> ProcessGroup::gather_text(const std::string& name, const std::string& mine) const {
  return world_->gather(*members_, "exchange of " + name, mine, world_->options.timeout_seconds);
}

WireBytes ProcessGroup::wire_bytes() const {
  return {world_->all_to_all_bytes, world_->all_reduce_bytes, world_->broadcast_bytes};
}

}  // namespace switchyard
