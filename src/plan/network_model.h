// How long collectives take between the devices of a cluster.
#pragma once

#include <cstdint>
#include <optional>

#include "base/enum_words.h"
#include "plan/cluster.h"

namespace switchyard {

enum class CollectiveKind { kAllToAll, kAllReduce, kBroadcast };
template <>
inline constexpr auto enum_words<CollectiveKind> = std::to_array<const char*>({"all_to_all", "all_reduce",
                                                                               "broadcast"});

// `size` devices at places first, first + stride, ...; all groups of one layout are alike.
struct DeviceGroup {
  int64_t size = 1, stride = 1;
};

// Members of a group that share a node.
int64_t members_per_node(const Cluster& cluster, const DeviceGroup& group);

// Seconds of one all-to-all whose busiest member sends or receives `bytes`, without what it keeps. What stays within
// the node and what leaves it go over the two kinds of link one after the other; starting takes the longer of the two
// latencies, times log2 of the number of members.
double all_to_all_seconds(const Cluster& cluster, const DeviceGroup& group, double bytes);

// Seconds of an all-reduce of `bytes` on every member: a ring within each node (reduce-scatter, all-gather), and
// between nodes a ring for each member's share.
double all_reduce_seconds(const Cluster& cluster, const DeviceGroup& group, double bytes);

// What a member of `members` sends in a ring all-reduce of `bytes`: 2 (n - 1) / n of them.
double ring_bytes(int64_t members, double bytes);

}  // namespace switchyard
