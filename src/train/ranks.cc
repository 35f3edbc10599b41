#include "train/ranks.h"

#include <ATen/Parallel.h>

#include "base/error.h"
#include "base/files.h"
#include "parallel/agreement.h"
#include "parallel/launch.h"
#include "train/tensorboard.h"

namespace switchyard {
namespace {

std::string program_checksum() {
  const std::string bytes = read_file("/proc/self/exe", uint64_t{1} << 32);
  return join("checksum ", crc32c(bytes), " of ", bytes.size(), " bytes");
}

}  // namespace

std::unique_ptr<Mesh> open_mesh(const RunConfig& run, at::Device device) {
  const auto launch = launch_from_environment();
  const int64_t num_ranks = launch ? launch->num_ranks : 1;
  const AskedLayout asked{.data = run.parallel.data, .expert = run.parallel.expert, .tensor = run.parallel.tensor};
  const auto layout =
      complete_layout(asked, num_ranks, run.model.has_sparse_layers() ? run.model.routing.num_experts : 0);
  SY_CHECK(layout.tensor <= run.model.num_heads, "[parallel] tensor = ", layout.tensor, ": attention of ",
           run.model.num_heads, " heads cannot be cut in more parts than heads");
  if (num_ranks == 1) return std::make_unique<Mesh>();
  auto world = ProcessGroup::connect(*launch, {.timeout_seconds = run.parallel.timeout_seconds, .device = device});
  check_agreement(*world, {{"run file", run_to_toml(run)},
                           {"program", program_checksum()},
                           {"threads", std::to_string(at::get_num_threads())}});
  return std::make_unique<Mesh>(std::move(world), layout);
}

bool is_restart() {
  const auto launch = launch_from_environment();
  return launch && launch->restart > 0;
}

}  // namespace switchyard
