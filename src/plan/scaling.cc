#include "plan/scaling.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <numeric>
#include <optional>
#include <sstream>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"

namespace switchyard {
namespace {

MeasuredStep read_step(const Json& line, const std::string& place) {
  MeasuredStep step;
  if (line.contains("model_flops_utilization") && line.at("model_flops_utilization").is_number())
    step.efficiency = std::clamp(line.at("model_flops_utilization").get<double>(), 0.0, 1.0);
  if (!line.contains("expert_load")) return step;
  SY_CHECK(line.at("expert_load").is_object(), place, ": expected an object \"expert_load\" of lists");
  for (const auto& [layer, shares] : line.at("expert_load").items()) {
    SY_CHECK(shares.is_array() && !shares.empty(), place, ": expected a list of shares for layer ", layer);
    step.loads.emplace_back();
    for (const auto& share : shares) {
      SY_CHECK(share.is_number() && share.get<double>() >= 0, place, ": expected shares of at least 0 for layer ",
               layer);
      step.loads.back().push_back(share.get<double>());
    }
  }
  return step;
}

// Which of `num_measured` experts stands for an expert of a layer with more: drawn alike for all, by SplitMix64 of its
// number. Taken in turn, a rank with as many experts as were measured would always have an even load.
size_t stand_in(size_t expert, size_t num_measured) {
  uint64_t mixed = (expert + 1) * 0x9E3779B97F4A7C15ULL;
  mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9ULL;
  mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBULL;
  return (mixed ^ (mixed >> 31)) % num_measured;
}

// Shares of `num_experts` experts as uneven as the measured ones, each at most what capacity lets it take.
std::vector<double> kept_shares(const std::vector<double>& load, int64_t num_experts, double most) {
  std::vector<double> shares(static_cast<size_t>(num_experts));
  double sum = 0;
  for (size_t expert = 0; expert < shares.size(); ++expert)
    sum += shares[expert] = load[shares.size() > load.size() ? stand_in(expert, load.size()) : expert];
  for (double& share : shares) share = sum > 0 ? std::min(share / sum, most) : 1.0 / static_cast<double>(num_experts);
  return shares;
}

double busiest_over_mean(const std::vector<double>& shares, int64_t ranks) {
  const auto num_experts = static_cast<int64_t>(shares.size());
  const int64_t parts = std::min(ranks, num_experts);
  double busiest = 0;
  for (int64_t part = 0; part < parts; ++part) {
    const auto slice = even_slice(num_experts, parts, part);
    const double rows = std::accumulate(shares.begin() + slice.begin, shares.begin() + slice.end, 0.0);
    // Ranks with the same experts share their rows.
    busiest = std::max(busiest, rows / static_cast<double>(even_slice(ranks, parts, part).size()));
  }
  return busiest * static_cast<double>(ranks) / std::accumulate(shares.begin(), shares.end(), 0.0);
}

void add(StepTime& sum, const StepTime& time, double scale) {
  sum.compute += scale * time.compute;
  sum.memory += scale * time.memory;
  sum.update += scale * time.update;
  sum.wire += scale * time.wire;
}

// Every measured step on the point's layout.
void replay(const Workload& workload, Cluster cluster, const std::vector<MeasuredStep>& steps, ScalingPoint& point) {
  const auto ranks = rank_states(workload, point.plan.layout);
  const double usual = cluster.efficiency, scale = 1.0 / static_cast<double>(steps.size());
  for (const auto& step : steps) {
    const auto uneven = unevenness_of(step, workload, point.plan.layout.expert);
    cluster.efficiency = step.efficiency > 0 ? step.efficiency : usual;
    auto uneven_workload = workload;
    uneven_workload.load_imbalance = uneven.imbalance;
    uneven_workload.dropped_fraction = uneven.dropped;
    const auto time_of = [&](const Workload& work) {
      return step_time(cluster, work, point.plan.layout, ranks,
                       step_traffic(work, point.plan.layout, ranks, point.plan.micro_batch), point.plan.micro_batch);
    };
    const auto time = time_of(uneven_workload);
    uneven_workload.load_imbalance = 1.0;
    point.waiting += scale * (time.compute - time_of(uneven_workload).compute);
    add(point.time, time, scale);
    point.seconds += scale * time.total();
    point.slowest_seconds = std::max(point.slowest_seconds, time.total());
    point.fastest_seconds = point.fastest_seconds == 0 ? time.total() : std::min(point.fastest_seconds, time.total());
  }
}

// Of the layouts that are fastest with balanced experts, the one that is with measured ones.
ScalingPoint fastest_replay(const std::vector<PlannedLayout>& plans, const Workload& workload, const Cluster& cluster,
                            const std::vector<MeasuredStep>& steps, const ScalingPoint& start) {
  constexpr size_t kTried = 5;
  std::optional<ScalingPoint> best;
  for (size_t n = 0; n < std::min(kTried, plans.size()) && plans[n].fits; ++n) {
    auto point = start;
    point.plan = plans[n];
    replay(workload, cluster, steps, point);
    if (!best || point.seconds < best->seconds) best = std::move(point);
  }
  return *best;
}

}  // namespace

std::vector<MeasuredStep> read_measured_steps(const std::string& metrics_file, int64_t limit) {
  std::istringstream text(read_file(metrics_file));
  std::vector<MeasuredStep> all;
  std::string words;
  for (int64_t number = 1; std::getline(text, words); ++number) {
    if (text.eof()) break;  // a line that is still being written
    const std::string place = join(metrics_file, ":", number);
    const Json line = parse_json(words, place);
    SY_CHECK(line.is_object(), place, ": expected an object");
    if (line.contains("step_seconds")) all.push_back(read_step(line, place));
  }
  SY_CHECK(!all.empty(), metrics_file, ": holds no steps; name the --out folder of `switchyard train`");
  const auto count = static_cast<int64_t>(all.size()), first = count / 10, left = count - first;
  std::vector<MeasuredStep> steps;
  for (int64_t n = 0; n < std::min(limit, left); ++n)
    steps.push_back(all[static_cast<size_t>(first + n * left / std::min(limit, left))]);
  return steps;
}

Unevenness unevenness_of(const MeasuredStep& step, const Workload& workload, int64_t expert_ranks) {
  Unevenness mean;
  const auto sites = sparse_sites(workload);
  if (step.loads.empty() || sites.empty()) return mean;
  mean.imbalance = 0.0;
  const auto& routing = workload.model.routing;
  for (size_t n = 0; n < sites.size(); ++n) {
    const auto experts = static_cast<double>(sites[n].num_experts);
    const double choices = static_cast<double>(routing.num_selected_experts);
    const double most = routing.drop_tokens ? routing.train_capacity_factor / choices / experts : 1.0;
    const auto shares = kept_shares(step.loads[n % step.loads.size()], sites[n].num_experts, most);
    mean.imbalance += busiest_over_mean(shares, expert_ranks);
    mean.dropped += 1.0 - std::accumulate(shares.begin(), shares.end(), 0.0);
  }
  const auto count = static_cast<double>(sites.size());
  return {mean.imbalance / count, std::max(0.0, mean.dropped / count)};
}

ScalingStudy study_scaling(const Workload& workload, const Cluster& cluster, const std::vector<int64_t>& counts,
                           const std::vector<MeasuredStep>& steps) {
  const std::vector<MeasuredStep> replayed = steps.empty() ? std::vector<MeasuredStep>{{}} : steps;
  const auto points = [&](bool grows) {
    std::vector<ScalingPoint> line;
    double first_rate = 0;  // tokens a second and device
    for (const int64_t devices : counts) {
      ScalingPoint point;
      point.devices = devices;
      auto work = workload;
      auto machines = cluster;
      work.batch_size = grows ? workload.batch_size * devices / counts.front() : workload.batch_size;
      machines.num_devices = devices;
      point.batch_size = work.batch_size;
      const auto plans = plan_layouts(work, machines);
      point.plan = plans.front();
      if (point.plan.fits) {
        point = fastest_replay(plans, work, machines, replayed, point);
        const auto tokens = static_cast<double>(work.batch_size * (work.encoder_length + work.decoder_length));
        point.tokens_per_second = tokens / point.seconds;
        const double rate = point.tokens_per_second / static_cast<double>(devices);
        if (first_rate == 0) first_rate = rate;
        point.efficiency = rate / first_rate;
      }
      line.push_back(std::move(point));
    }
    return line;
  };
  return {points(true), points(false)};
}

std::vector<int64_t> read_device_counts(const std::string& range) {
  int64_t first = 0, last = 0;
  char end = 0;
  const bool is_range = std::sscanf(range.c_str(), "%" SCNd64 "..%" SCNd64 "%c", &first, &last, &end) == 2;
  SY_CHECK(is_range && first >= 1 && last >= first && last <= 1 << 20, "--scaling \"", range,
           "\": expected FIRST..LAST devices, for example 8..2048, which doubles from 8 on");
  std::vector<int64_t> counts;
  for (int64_t count = first; count <= last; count *= 2) counts.push_back(count);
  return counts;
}

}  // namespace switchyard
