#include "plan/cluster.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/config.h"

namespace switchyard {
namespace {

constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;

struct Device {
  const char* name;
  double memory_gib, teraflops, fp32_teraflops, memory_gigabytes;  // the last a second
  int64_t per_node;
  double intra_gigabytes, inter_gigabytes;  // a second and device, one direction
  double intra_microseconds, inter_microseconds;
};

// Peak figures as makers publish them, without structured sparsity. Links count one direction. Latencies are not
// published; those here are what small collectives take in published measurements (NCCL 5 to 10 us in a node, 10 to 20
// between nodes).
//   tpu-v3: one of a chip's two cores. 123 TFLOP/s, 32 GiB and 900 GB/s a chip, four links of 656 Gbit/s (Jouppi et
//   al.,
//     "A domain-specific supercomputer for training deep neural networks", CACM 2020, table 3; Cloud TPU
//     documentation). Links of a pod's torus join chips alike, within a host of eight cores and beyond. f32 products
//     as six of bf16.
//   tpu-v4: a chip. 275 TFLOP/s, 32 GiB, 1,200 GB/s, six links of 50 GB/s (Jouppi et al., ISCA 2023, table 4).
//   a100-80: A100 80GB SXM data sheet (f32: TF32 products); DGX A100: NVLink 300 GB/s, 8 x 200 Gbit/s a node.
//   h100, h200: H100 and H200 SXM data sheets; DGX H100 and H200: NVLink 450 GB/s, 8 x 400 Gbit/s a node.
//   mi300x: MI300X data sheet and platform brief: seven links of 64 GB/s, 8 x 400 Gbit/s a node.
//   cpu: one core of a Zen 4 server as measured for this program (docs/results.md), messages by Gloo over loopback.
constexpr auto kDevices = std::to_array<Device>({
    {"tpu-v3", 16, 61.5, 10.2, 450, 8, 164, 164, 2, 5},
    {"tpu-v4", 32, 275, 45.8, 1200, 4, 300, 300, 2, 5},
    {"a100-80", 80, 312, 156, 2039, 8, 300, 25, 6, 15},
    {"h100", 80, 989, 494, 3350, 8, 450, 50, 6, 15},
    {"h200", 141e9 / kGiB, 989, 494, 4800, 8, 450, 50, 6, 15},
    {"mi300x", 192, 1307, 654, 5300, 8, 448, 50, 6, 15},
    {"cpu", 8, 0.3, 0.09, 20, 2, 1.5, 1.0, 60, 100},
});

}  // namespace

std::vector<std::string> device_names() {
  std::vector<std::string> names;
  for (const auto& device : kDevices) names.emplace_back(device.name);
  return names;
}

Cluster known_cluster(const std::string& device, int64_t num_devices) {
  const auto* found =
      std::find_if(kDevices.begin(), kDevices.end(), [&](const Device& known) { return device == known.name; });
  if (found == kDevices.end()) {
    std::string list;
    for (const auto& name : device_names()) list += (list.empty() ? "" : ", ") + name;
    throw Error(join("--device \"", device.substr(0, 64), "\": expected one of ", list,
                     nearest_hint(device.substr(0, 64), device_names()),
                     "; figures of another device go over the nearest one's with --memory, --flops, ..."));
  }
  return {.device = device,
          .num_devices = num_devices,
          .memory_bytes = found->memory_gib * kGiB,
          .flops = found->teraflops * 1e12,
          .fp32_flops = found->fp32_teraflops * 1e12,
          .memory_bandwidth = found->memory_gigabytes * 1e9,
          .devices_per_node = found->per_node,
          .intra_bandwidth = found->intra_gigabytes * 1e9,
          .inter_bandwidth = found->inter_gigabytes * 1e9,
          .intra_latency = found->intra_microseconds * 1e-6,
          .inter_latency = found->inter_microseconds * 1e-6};
}

void validate(const Cluster& cluster) {
  constexpr int64_t kMostDevices = int64_t{1} << 20;
  SY_CHECK(cluster.num_devices >= 1 && cluster.num_devices <= kMostDevices, "--devices ", cluster.num_devices,
           ": expected 1 to ", kMostDevices);
  SY_CHECK(cluster.devices_per_node >= 1, "--node ", cluster.devices_per_node, ": expected at least one device a node");
  const auto check = [](const char* option, double value) {
    SY_CHECK(std::isfinite(value) && value > 0, option, ": expected a number above 0, got ", value);
  };
  check("--memory", cluster.memory_bytes);
  check("--flops", cluster.flops);
  check("--flops", cluster.fp32_flops);
  check("--memory-bandwidth", cluster.memory_bandwidth);
  check("--bandwidth", cluster.intra_bandwidth);
  check("--network-bandwidth", cluster.inter_bandwidth);
  check("--efficiency", cluster.efficiency);
  SY_CHECK(cluster.efficiency <= 1.0, "--efficiency ", cluster.efficiency, ": expected a share, at most 1");
  for (const double latency : {cluster.intra_latency, cluster.inter_latency})
    SY_CHECK(std::isfinite(latency) && latency >= 0, "--latency: expected 0 or more seconds, got ", latency);
}

}  // namespace switchyard
