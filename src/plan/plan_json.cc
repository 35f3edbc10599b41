#include "plan/plan_json.h"

#include <algorithm>
#include <cmath>

namespace switchyard {
namespace {

Json whole(double bytes) { return static_cast<int64_t>(std::llround(bytes)); }

}  // namespace

Json to_json(const PlannedLayout& plan, const Cluster& cluster) {
  Json json = {
      {"data", plan.layout.data}, {"expert", plan.layout.expert}, {"tensor", plan.layout.tensor}, {"fits", plan.fits}};
  if (!plan.fits) json["reason"] = plan.reason;
  json["micro_batch"] = plan.micro_batch;
  const auto& memory = plan.memory;
  json["memory_bytes"] = {{"weights", whole(memory.weights)},     {"gradients", whole(memory.gradients)},
                          {"optimizer", whole(memory.optimizer)}, {"activations", whole(memory.activations)},
                          {"buffers", whole(memory.buffers)},     {"overlap", whole(-memory.overlap)},
                          {"total", whole(memory.total())}};
  double total = 0;
  for (const auto kind : {CollectiveKind::kAllToAll, CollectiveKind::kAllReduce, CollectiveKind::kBroadcast}) {
    json["wire_bytes"][to_word(kind)] = whole(bytes_of(plan.traffic, kind));
    total += bytes_of(plan.traffic, kind);
  }
  json["wire_bytes"]["total"] = whole(total);
  json["collectives"] = Json::array();
  for (const auto& collective : plan.traffic)
    json["collectives"].push_back({{"name", collective.name},
                                   {"kind", to_word(collective.kind)},
                                   {"group", collective.group},
                                   {"devices", collective.devices.size},
                                   {"calls", collective.calls},
                                   {"bytes", whole(collective.bytes)},
                                   {"first_bytes", whole(collective.first)},
                                   {"busiest_bytes", whole(collective.busiest)},
                                   {"seconds", seconds_of(cluster, collective)}});
  json["step_seconds"] = plan.time.total();
  json["seconds"] = {{"compute", plan.time.compute},
                     {"memory", plan.time.memory},
                     {"update", plan.time.update},
                     {"wire", plan.time.wire}};
  json["bound"] = to_word(plan.time.bound());
  return json;
}

Json to_json(const ScalingStudy& study) {
  const auto list = [](const std::vector<ScalingPoint>& points) {
    Json json = Json::array();
    for (const auto& point : points) {
      Json entry = {{"devices", point.devices}, {"batch_size", point.batch_size}, {"fits", point.plan.fits}};
      if (!point.plan.fits) {
        entry["reason"] = point.plan.reason;
        json.push_back(entry);
        continue;
      }
      entry.update({{"data", point.plan.layout.data},
                    {"expert", point.plan.layout.expert},
                    {"tensor", point.plan.layout.tensor},
                    {"micro_batch", point.plan.micro_batch},
                    {"step_seconds", point.seconds},
                    {"fastest_seconds", point.fastest_seconds},
                    {"slowest_seconds", point.slowest_seconds},
                    {"seconds",
                     {{"compute", point.time.compute - point.waiting},
                      {"waiting", point.waiting},
                      {"memory", std::max(0.0, point.time.memory - point.time.compute)},
                      {"update", point.time.update},
                      {"wire", point.time.wire}}},
                    {"tokens_per_second", point.tokens_per_second},
                    {"efficiency", point.efficiency}});
      json.push_back(entry);
    }
    return json;
  };
  return {{"weak", list(study.weak)}, {"strong", list(study.strong)}};
}

Json to_json(const Cluster& cluster) {
  return {{"device", cluster.device},
          {"devices", cluster.num_devices},
          {"memory_bytes", whole(cluster.memory_bytes)},
          {"flops", cluster.flops},
          {"fp32_flops", cluster.fp32_flops},
          {"efficiency", cluster.efficiency},
          {"memory_bandwidth", cluster.memory_bandwidth},
          {"devices_per_node", cluster.devices_per_node},
          {"intra_bandwidth", cluster.intra_bandwidth},
          {"inter_bandwidth", cluster.inter_bandwidth},
          {"intra_latency", cluster.intra_latency},
          {"inter_latency", cluster.inter_latency}};
}

}  // namespace switchyard
