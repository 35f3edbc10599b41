// The machines that a plan is made for: equal devices in equal nodes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace switchyard {

struct Cluster {
  std::string device = "h200";
  int64_t num_devices = 1;
  double memory_bytes = 0;      // of one device
  double flops = 0;             // bf16 products a second, a multiply-add being two
  double fp32_flops = 0;        // the same in f32
  double memory_bandwidth = 0;  // bytes a second
  // Bytes a second that one device sends to others of its node, and through its share of the node's network; seconds
  // until a message of no length has arrived.
  int64_t devices_per_node = 8;
  double intra_bandwidth = 0, inter_bandwidth = 0;
  double intra_latency = 0, inter_latency = 0;
  double efficiency = 0.5;  // share of `flops` that a training step's products reach
};

// The names of known devices, and one of them with its public figures. Throws Error with the nearest known name.
std::vector<std::string> device_names();
Cluster known_cluster(const std::string& device, int64_t num_devices);

// Throws Error naming the option if a figure is not positive.
void validate(const Cluster& cluster);

}  // namespace switchyard
