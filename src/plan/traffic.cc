#include "plan/traffic.h"

#include <algorithm>

#include "ops/routing_counts.h"

namespace switchyard {
namespace {

constexpr double kWide = 4.0, kIndex = 8.0;  // bytes of an f32 and of an int64
// Sums over tensor ranks travel as f32 whatever the compute dtype: Gloo would add bf16 in bf16.
constexpr double kSumBytes = kWide;

double number(int64_t value) { return static_cast<double>(value); }

// One layout's groups and one device's share of a step.
struct Step {
  const Workload& workload;
  const Layout& layout;
  double inputs, targets;  // tokens of a device a step, the mean over batch ranks
  int64_t micro_batches;   // of the device with the most
  double sequences;        // mean over batch ranks
};

void add(std::vector<Collective>& traffic, Collective collective) {
  if (collective.devices.size > 1 && collective.bytes > 0) traffic.push_back(std::move(collective));
}

// All-reduces of `values` numbers a step of `width` bytes each, over the tensor group.
void add_sum(std::vector<Collective>& traffic, const Step& step, const char* name, int64_t calls, double values,
             double width) {
  const double bytes = ring_bytes(step.layout.tensor, values * width);
  add(traffic, {.name = name,
                .group = "tensor",
                .kind = CollectiveKind::kAllReduce,
                .devices = {step.layout.tensor, 1},
                .calls = calls * step.micro_batches,
                .waits = calls * step.micro_batches,
                .bytes = bytes,
                .first = bytes,
                .busiest = bytes});
}

void add_tensor_sums(std::vector<Collective>& traffic, const Step& step) {
  const auto& model = step.workload.model;
  const double d = number(model.d_model), s = kSumBytes;
  const double encoder = number(model.num_encoder_layers), decoder = number(model.num_decoder_layers);
  const int64_t layers = model.num_encoder_layers + model.num_decoder_layers;
  const double in_layers = (encoder * step.inputs + decoder * step.targets) * d;
  add_sum(traffic, step, "sums behind self attention", 2 * layers, 2 * in_layers, s);
  add_sum(traffic, step, "sums behind cross attention", 3 * model.num_decoder_layers,
          decoder * (2 * step.targets + step.inputs) * d, s);
  add_sum(traffic, step, "sums behind feed-forward", 2 * layers, 2 * in_layers, s);
  add_sum(traffic, step, "looked-up embeddings", 2, (step.inputs + step.targets) * d, kWide);
  add_sum(traffic, step, "states before the vocabulary", 1, step.targets * d, s);
  add_sum(traffic, step, "log-partitions and labels' logits", 4, 4 * step.targets, kWide);
  double rows = 0;
  const auto sites = sparse_sites(step.workload);
  for (const auto& site : sites) rows += routed_rows(step.workload, site, 1) * step.sequences;
  add_sum(traffic, step, "gates' gradients", static_cast<int64_t>(sites.size()), rows, kWide);
}

// Share of rows, spread evenly over experts, that go to another rank: the mean over an expert group's ranks. Of ranks
// with the same expert, rank r's rows go to number r modulo their number.
double leaving_share(int64_t num_experts, int64_t num_ranks) {
  if (num_experts >= num_ranks) return 1.0 - 1.0 / number(num_ranks);
  double stay = 0;
  for (int64_t expert = 0; expert < num_experts; ++expert) {
    const auto ranks = even_slice(num_ranks, num_experts, expert);
    for (int64_t rank = ranks.begin; rank < ranks.end; ++rank)
      stay += ranks.begin + rank % ranks.size() == rank ? 1.0 : 0.0;
  }
  return 1.0 - stay / number(num_ranks * num_experts);
}

void add_expert_exchange(std::vector<Collective>& traffic, const Step& step) {
  const auto& layout = step.layout;
  const DeviceGroup group{layout.expert, layout.tensor};
  const auto sites = sparse_sites(step.workload);
  double to_experts = 0, to_tokens = 0, counts = 0, numbers = 0;
  for (const auto& site : sites) {
    const double rows =
        routed_rows(step.workload, site, 1) * step.sequences * leaving_share(site.num_experts, layout.expert);
    to_experts += rows * number(step.workload.model.d_model * site.value_bytes);
    // Each tensor rank has its heads' part of queries, keys and values.
    const double width = site.is_attention ? number(site.out_width) / number(layout.tensor) : number(site.out_width);
    to_tokens += rows * width * number(site.value_bytes);
    counts += kIndex * number(std::max(site.num_experts, layout.expert)) * number(layout.expert - 1) /
              number(layout.expert) * number(step.micro_batches);
    if (step.workload.model.expert_dropout_rate > 0.0) numbers += kIndex * rows;
  }
  const auto calls = static_cast<int64_t>(sites.size()) * step.micro_batches;
  const auto put = [&](const char* name, int64_t times, double bytes, double imbalance) {
    add(traffic, {.name = name,
                  .group = "expert",
                  .kind = CollectiveKind::kAllToAll,
                  .devices = group,
                  .calls = times,
                  .waits = times,
                  .bytes = bytes,
                  .first = bytes,
                  .busiest = bytes * imbalance});
  };
  const double imbalance = step.workload.load_imbalance;
  put("rows' counts", calls, counts, 1.0);
  put("rows' numbers", calls, numbers, imbalance);
  put("rows to experts and their gradients back", 2 * calls, 2 * to_experts, imbalance);
  put("rows to tokens and their gradients back", 2 * calls, 2 * to_tokens, imbalance);
}

void add_update(std::vector<Collective>& traffic, const Layout& layout, const std::vector<RankState>& ranks) {
  // One hop, or two where many places share gradients and values (plan/rank_state.h).
  const int64_t hops = layout.data * layout.expert > kMostDirectPlaces ? 2 : 1;
  const auto put = [&](const char* name, double RankState::*sent, double RankState::*received) {
    Collective collective{.name = name,
                          .group = "all",
                          .devices = {layout.num_ranks(), 1},
                          .calls = hops * ranks.front().num_buckets,
                          .waits = hops,  // all buckets are in flight at once
                          .first = ranks.front().*sent};
    for (const auto& rank : ranks) {
      collective.bytes += rank.*sent / number(layout.num_ranks());
      collective.busiest = std::max({collective.busiest, rank.*sent, rank.*received});
    }
    add(traffic, std::move(collective));
  };
  put("gradients to owners", &RankState::gradients_sent, &RankState::gradients_received);
  put("new values to holders", &RankState::values_sent, &RankState::values_received);
}

// Sums of losses, counts and routing statistics over all ranks, so that each logs and decides the same.
void add_results(std::vector<Collective>& traffic, const Workload& workload, const Layout& layout) {
  const auto& routing = workload.model.routing;
  double numbers = 2 + 5;  // tokens of both stacks; losses and the gradient's norm
  if (routing.importance_loss_coef > 0) ++numbers;
  if (routing.load_loss_coef > 0) ++numbers;
  for (const auto& site : sparse_sites(workload))
    numbers += number(ops::RoutingCounts::kNumSums + 2 * site.num_experts + 1) + (routing.load_loss_coef > 0 ? 1 : 0);
  const double bytes = ring_bytes(layout.num_ranks(), kIndex * numbers);
  add(traffic, {.name = "results",
                .group = "all",
                .kind = CollectiveKind::kAllReduce,
                .devices = {layout.num_ranks(), 1},
                .calls = 2,
                .waits = 2,
                .bytes = bytes,
                .first = bytes,
                .busiest = bytes});
}

}  // namespace

std::vector<Collective> step_traffic(const Workload& workload, const Layout& layout,
                                     const std::vector<RankState>& ranks, int64_t micro_batch) {
  const auto share = batch_share(workload, layout);
  const double sequences = number(workload.batch_size) / number(layout.data * layout.expert);
  const Step step{.workload = workload,
                  .layout = layout,
                  .inputs = sequences * number(workload.encoder_length),
                  .targets = sequences * number(workload.decoder_length),
                  .micro_batches = (share.sequences + micro_batch - 1) / micro_batch,
                  .sequences = sequences};
  std::vector<Collective> traffic;
  if (layout.expert > 1) add_expert_exchange(traffic, step);
  if (layout.tensor > 1) add_tensor_sums(traffic, step);
  add_update(traffic, layout, ranks);
  add_results(traffic, workload, layout);
  return traffic;
}

double bytes_of(const std::vector<Collective>& traffic, CollectiveKind kind) {
  double bytes = 0;
  for (const auto& collective : traffic)
    if (collective.kind == kind) bytes += collective.bytes;
  return bytes;
}

}  // namespace switchyard
