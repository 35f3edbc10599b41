// Weak and strong scaling over device counts: layouts replayed step by step with what a real run measured, of each
// count the fastest.
#pragma once

#include <string>
#include <vector>

#include "plan/planner.h"

namespace switchyard {

// What a replay takes from one logged step of a run.
struct MeasuredStep {
  double efficiency = 0;                   // share of the machine's product rate; 0: the cluster's
  std::vector<std::vector<double>> loads;  // [layer][expert]: share of the choices, before any is dropped
};

// Reads the logged steps of a run's metrics.jsonl, at most `limit` of them, evenly spread, the first tenth left out: it
// warms up. Throws Error naming file and line.
std::vector<MeasuredStep> read_measured_steps(const std::string& metrics_file, int64_t limit);

// How unevenly a step's rows lie on the expert ranks of a layout: of each layer the busiest rank's rows over the mean,
// and the share of rows beyond capacity; means over layers. Layers beyond the measured ones repeat them; the loads of
// more experts than were measured are drawn from theirs.
struct Unevenness {
  double imbalance = 1.0, dropped = 0.0;
};
Unevenness unevenness_of(const MeasuredStep& step, const Workload& workload, int64_t expert_ranks);

struct ScalingPoint {
  int64_t devices = 0, batch_size = 0;
  PlannedLayout plan;                                            // of balanced experts; does not fit where none does
  double seconds = 0, fastest_seconds = 0, slowest_seconds = 0;  // of a step: mean and range over the replay
  StepTime time;                                                 // mean over the replay
  double waiting = 0;  // seconds of time.compute that ranks wait for their busiest
  double tokens_per_second = 0;
  double efficiency = 0;  // tokens a second and device over those of the first count that fits
};

struct ScalingStudy {
  std::vector<ScalingPoint> weak;    // the batch grows with the devices
  std::vector<ScalingPoint> strong;  // the batch stays
};

// cluster.num_devices is replaced by each of `counts`; workload.batch_size is that of the first one. `steps` empty: one
// step with balanced experts. Throws Error as plan_layouts() does.
ScalingStudy study_scaling(const Workload& workload, const Cluster& cluster, const std::vector<int64_t>& counts,
                           const std::vector<MeasuredStep>& steps);

// "8..2048": 8, 16, ..., 2048. Throws Error for another form.
std::vector<int64_t> read_device_counts(const std::string& range);

}  // namespace switchyard
