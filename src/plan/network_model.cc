#include "plan/network_model.h"

#include <algorithm>
#include <cmath>

namespace switchyard {
namespace {

double start_up(const Cluster& cluster, const DeviceGroup& group) {
  const bool leaves_node = members_per_node(cluster, group) < group.size;
  return std::ceil(std::log2(static_cast<double>(group.size))) *
         (leaves_node ? cluster.inter_latency : cluster.intra_latency);
}

}  // namespace

int64_t members_per_node(const Cluster& cluster, const DeviceGroup& group) {
  return std::clamp<int64_t>(cluster.devices_per_node / group.stride, 1, group.size);
}

double all_to_all_seconds(const Cluster& cluster, const DeviceGroup& group, double bytes) {
  if (group.size <= 1) return 0.0;
  const auto members = static_cast<double>(group.size), near = static_cast<double>(members_per_node(cluster, group));
  const double within = bytes * (near - 1) / (members - 1), beyond = bytes * (members - near) / (members - 1);
  return start_up(cluster, group) + within / cluster.intra_bandwidth + beyond / cluster.inter_bandwidth;
}

double ring_bytes(int64_t members, double bytes) {
  return 2.0 * static_cast<double>(members - 1) / static_cast<double>(members) * bytes;
}

double all_reduce_seconds(const Cluster& cluster, const DeviceGroup& group, double bytes) {
  if (group.size <= 1) return 0.0;
  const int64_t near = members_per_node(cluster, group), nodes = (group.size + near - 1) / near;
  const double within = ring_bytes(near, bytes), beyond = ring_bytes(nodes, bytes / static_cast<double>(near));
  return start_up(cluster, group) + within / cluster.intra_bandwidth + beyond / cluster.inter_bandwidth;
}

}  // namespace switchyard
