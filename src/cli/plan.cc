// switchyard plan: how a model can be spread over a cluster, what each layout takes, and which is the fastest.
#include "cli/plan.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <optional>

#include "base/error.h"
#include "base/files.h"
#include "checkpoint/checkpoint_store.h"
#include "cli/commands.h"
#include "cli/run_workload.h"
#include "model/flops.h"
#include "model/parameters.h"
#include "plan/picture.h"
#include "plan/plan_json.h"
#include "plan/planner.h"
#include "plan/scaling.h"
#include "report/html.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

struct PlanCommand {
  std::string subject;
  std::vector<std::string> settings;
  int64_t devices = 0, num_shown = 12;
  std::string device = "h200";
  std::optional<double> memory, flops, memory_bandwidth, bandwidth, network_bandwidth, latency, network_latency,
      efficiency;
  std::optional<int64_t> node, batch, micro_batch, encoder_length, decoder_length;
  std::string dtype, optimizer, layout, picture, scaling, measured;
  double dropped = 0.0, imbalance = 1.0;
  bool json = false;
};

Workload make_workload(const PlanCommand& command, Workload workload) {
  workload.batch_size = command.batch.value_or(workload.batch_size);
  workload.micro_batch_size = command.micro_batch.value_or(workload.micro_batch_size);
  workload.encoder_length = command.encoder_length.value_or(workload.encoder_length);
  workload.decoder_length = command.decoder_length.value_or(workload.decoder_length);
  if (!command.dtype.empty()) workload.is_bf16 = command.dtype == "bf16";
  if (!command.optimizer.empty()) workload.optimizer = command.optimizer;
  workload.dropped_fraction = command.dropped;
  workload.load_imbalance = command.imbalance;
  return workload;
}

Cluster make_cluster(const PlanCommand& command, int64_t devices) {
  auto cluster = known_cluster(command.device, devices);
  cluster.memory_bytes = command.memory ? *command.memory * 1024 * 1024 * 1024 : cluster.memory_bytes;
  if (command.flops) cluster.flops = cluster.fp32_flops = *command.flops * 1e12;
  cluster.memory_bandwidth = command.memory_bandwidth ? *command.memory_bandwidth * 1e9 : cluster.memory_bandwidth;
  cluster.intra_bandwidth = command.bandwidth ? *command.bandwidth * 1e9 : cluster.intra_bandwidth;
  cluster.inter_bandwidth = command.network_bandwidth ? *command.network_bandwidth * 1e9 : cluster.inter_bandwidth;
  cluster.intra_latency = command.latency ? *command.latency * 1e-6 : cluster.intra_latency;
  cluster.inter_latency = command.network_latency ? *command.network_latency * 1e-6 : cluster.inter_latency;
  cluster.devices_per_node = command.node.value_or(cluster.devices_per_node);
  cluster.efficiency = command.efficiency.value_or(cluster.efficiency);
  return cluster;
}

// What all layouts have in common.
struct Model {
  int64_t parameters = 0;
  double flops = 0;  // of one sequence's forward pass, as table 9 counts them
};

Model describe(const Workload& workload) {
  Model model{.flops = forward_flops(workload.model, workload.encoder_length, workload.decoder_length)};
  for (const auto& spec : parameter_specs(workload.model)) model.parameters += spec.numel();
  return model;
}

// Where a plan goes beyond what this program's training does.
std::vector<std::string> assumptions(const Cluster& cluster) {
  if (cluster.num_devices <= kMostDirectPlaces) return {};
  return {
      join("beyond ", kMostDirectPlaces,
           " places of data x expert, gradients are summed in two hops, a run of each "
           "matrix at each place; training has the one hop, in which a matrix's owner receives it from every place")};
}

Json plans_json(const PlanCommand& command, const Workload& workload, const Cluster& cluster, const Model& model,
                const std::vector<PlannedLayout>& plans) {
  Json layouts = Json::array();
  for (const auto& plan : plans) layouts.push_back(to_json(plan, cluster));
  return {{"model", command.subject},
          {"parameters", model.parameters},
          {"flops_per_sequence", model.flops},
          {"batch_size", workload.batch_size},
          {"encoder_length", workload.encoder_length},
          {"decoder_length", workload.decoder_length},
          {"dtype", workload.is_bf16 ? "bf16" : "fp32"},
          {"optimizer", workload.optimizer},
          {"cluster", to_json(cluster)},
          {"assumptions", assumptions(cluster)},
          {"layouts", layouts}};
}

std::string gib(double bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", bytes / (1024.0 * 1024.0 * 1024.0));
  return text;
}
std::string bytes_text(double bytes) { return format_number(bytes, 3) + "B"; }
std::string seconds_text(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, seconds < 1 ? "%.3g ms" : "%.3g s", seconds < 1 ? 1000 * seconds : seconds);
  return text;
}
std::string layout_text(const Layout& layout) { return join(layout.data, " x ", layout.expert, " x ", layout.tensor); }

void print_fitting(const PlanCommand& command, const Workload& workload, const std::vector<PlannedLayout>& plans) {
  std::printf("%-16s %6s %9s %9s %8s %9s %11s  %s\n", "data x exp x ten", "micro", "GiB", "compute", "wire", "step",
              "tokens/s", "bound");
  const auto tokens = static_cast<double>(workload.batch_size * (workload.encoder_length + workload.decoder_length));
  int64_t shown = 0, fitting = 0;
  for (const auto& plan : plans) {
    fitting += plan.fits ? 1 : 0;
    if (!plan.fits || shown++ >= command.num_shown) continue;
    std::printf("%-16s %6" PRId64 " %9s %9s %8s %9s %11s  %s\n", layout_text(plan.layout).c_str(), plan.micro_batch,
                gib(plan.memory.total()).c_str(), seconds_text(std::max(plan.time.compute, plan.time.memory)).c_str(),
                seconds_text(plan.time.wire).c_str(), seconds_text(plan.time.total()).c_str(),
                format_number(tokens / plan.time.total(), 4).c_str(), to_word(plan.time.bound()));
  }
  if (fitting == 0) std::printf("none fits\n");
  if (fitting > shown || fitting > command.num_shown)
    std::printf("... and %" PRId64 " more that fit\n", fitting - command.num_shown);
}

void print_others(const PlanCommand& command, const std::vector<PlannedLayout>& plans) {
  int64_t shown = 0, others = 0;
  for (const auto& plan : plans) {
    if (plan.fits) continue;
    if (others++ == 0) std::printf("\nnot possible\n");
    if (shown++ < command.num_shown) std::printf("%-16s %s\n", layout_text(plan.layout).c_str(), plan.reason.c_str());
  }
  if (others > command.num_shown) std::printf("... and %" PRId64 " more; --json has all\n", others - command.num_shown);
}

void print_best(const PlannedLayout& plan, const Cluster& cluster) {
  const auto& memory = plan.memory;
  std::printf("\n%s, fullest device: weights %s GiB, gradients %s, optimizer %s, activations %s, buffers %s\n",
              layout_text(plan.layout).c_str(), gib(memory.weights).c_str(), gib(memory.gradients).c_str(),
              gib(memory.optimizer).c_str(), gib(memory.activations).c_str(), gib(memory.buffers).c_str());
  for (const auto& collective : plan.traffic)
    std::printf("  %-40s %-10s %5" PRId64 " devices %6" PRId64 " calls %8s a device %9s\n", collective.name.c_str(),
                to_word(collective.kind), collective.devices.size, collective.calls,
                bytes_text(collective.bytes).c_str(), seconds_text(seconds_of(cluster, collective)).c_str());
}

void print_text(const PlanCommand& command, const Workload& workload, const Cluster& cluster, const Model& model,
                const std::vector<PlannedLayout>& plans) {
  std::printf("%s: %s parameters, %s FLOP a sequence of %" PRId64 " + %" PRId64 " tokens\n", command.subject.c_str(),
              format_number(static_cast<double>(model.parameters), 4).c_str(), format_number(model.flops, 4).c_str(),
              workload.encoder_length, workload.decoder_length);
  std::printf("%" PRId64 " x %s, %s GiB each, %s FLOP/s at %.0f%%; batch of %" PRId64 " sequences, %s, %s\n\n",
              cluster.num_devices, cluster.device.c_str(), gib(cluster.memory_bytes).c_str(),
              format_number(workload.is_bf16 ? cluster.flops : cluster.fp32_flops, 4).c_str(), 100 * cluster.efficiency,
              workload.batch_size, workload.is_bf16 ? "bf16" : "fp32", workload.optimizer.c_str());
  print_fitting(command, workload, plans);
  print_others(command, plans);
  if (!plans.empty()) print_best(plans.front(), cluster);
  for (const auto& words : assumptions(cluster)) std::printf("\nassumed: %s\n", words.c_str());
}

// "2x4x1": data, expert, tensor.
Layout read_layout(const std::string& text) {
  Layout layout;
  char end = 0;
  const bool is_layout = std::sscanf(text.c_str(), "%" SCNd64 "x%" SCNd64 "x%" SCNd64 "%c", &layout.data,
                                     &layout.expert, &layout.tensor, &end) == 3;
  for (const int64_t ways : {layout.data, layout.expert, layout.tensor})
    SY_CHECK(!is_layout || (ways >= 1 && ways <= 1 << 20), "--layout \"", text, "\": expected 1 to ", 1 << 20,
             " of each");
  SY_CHECK(is_layout, "--layout \"", text, "\": expected DATAxEXPERTxTENSOR, for example 2x4x1");
  return layout;
}

std::vector<PlannedLayout> plan_one(const Workload& workload, const Cluster& cluster, const Layout& layout) {
  validate(workload);
  validate(cluster);
  SY_CHECK(layout.num_ranks() == cluster.num_devices, "--layout ", layout_text(layout), " is of ", layout.num_ranks(),
           " devices, --devices says ", cluster.num_devices);
  return {plan_layout(workload, cluster, layout)};
}

void print_points(const char* title, const std::vector<ScalingPoint>& points) {
  std::printf("%s\n%8s %8s %-16s %11s %9s %9s %9s %11s %s\n", title, "devices", "batch", "data x exp x ten", "step",
              "compute", "waiting", "wire", "tokens/s", "efficiency");
  for (const auto& point : points) {
    if (!point.plan.fits) {
      std::printf("%8" PRId64 " %8" PRId64 " none fits: %s\n", point.devices, point.batch_size,
                  point.plan.reason.c_str());
      continue;
    }
    std::printf("%8" PRId64 " %8" PRId64 " %-16s %11s %9s %9s %9s %11s %9.1f%%\n", point.devices, point.batch_size,
                layout_text(point.plan.layout).c_str(), seconds_text(point.seconds).c_str(),
                seconds_text(point.time.compute - point.waiting).c_str(), seconds_text(point.waiting).c_str(),
                seconds_text(point.time.wire).c_str(), format_number(point.tokens_per_second, 4).c_str(),
                100 * point.efficiency);
  }
}

// Prints the result, unless it is wanted as JSON (else null).
Json run_scaling(const PlanCommand& command, const Workload& workload) {
  SY_CHECK(command.devices == 0 && command.layout.empty() && command.picture.empty(),
           "--scaling goes through device counts and layouts by itself; leave --devices, --layout and --picture out");
  const auto counts = read_device_counts(command.scaling);
  const auto cluster = make_cluster(command, counts.front());
  std::vector<MeasuredStep> steps;
  if (!command.measured.empty())
    steps = read_measured_steps((fs::path(command.measured) / "metrics.jsonl").string(), /*limit=*/100);
  if (command.efficiency)  // said explicitly
    for (auto& step : steps) step.efficiency = 0;
  const auto study = study_scaling(workload, cluster, counts, steps);
  if (command.json) {
    Json json = {{"model", command.subject},
                 {"measured", command.measured},
                 {"replayed_steps", steps.size()},
                 {"cluster", to_json(cluster)}};
    json.update(to_json(study));
    return json;
  }
  print_points("weak scaling: the batch grows with the devices", study.weak);
  print_points("\nstrong scaling: the batch stays", study.strong);
  return nullptr;
}

Json run(const PlanCommand& command) {
  const auto subject = read_workload(command.subject, command.settings);
  const auto workload = make_workload(command, subject.workload);
  SY_CHECK(command.measured.empty() || !command.scaling.empty(), "--measured is a run that --scaling replays");
  if (!command.scaling.empty()) return run_scaling(command, workload);
  int64_t devices = command.devices > 0 ? command.devices : subject.is_run ? subject.layout.num_ranks() : 0;
  if (devices == 0 && !command.layout.empty()) devices = read_layout(command.layout).num_ranks();
  SY_CHECK(devices > 0, "plan needs --devices N, for example: switchyard plan ", command.subject, " --devices 8");
  const auto cluster = make_cluster(command, devices);
  auto plans = command.layout.empty() ? plan_layouts(workload, cluster)
                                      : plan_one(workload, cluster, read_layout(command.layout));
  const auto model = describe(workload);
  if (!command.picture.empty())
    write_file_atomically(command.picture, draw_partitioning(workload, plans.front().layout));
  if (command.json) return plans_json(command, workload, cluster, model, plans);
  print_text(command, workload, cluster, model, plans);
  return nullptr;
}

void add_cluster_options(CLI::App& plan, PlanCommand& command) {
  std::string names;
  for (const auto& name : device_names()) names += (names.empty() ? "" : ", ") + name;
  plan.add_option("--devices", command.devices, "devices in all; a run file's own number if it is left out")
      ->check(CLI::Range(1, 1 << 20));
  plan.add_option("--device", command.device, "their kind: " + names + "; the options below replace its figures")
      ->capture_default_str();
  plan.add_option("--memory", command.memory, "GiB of one device");
  plan.add_option("--flops", command.flops, "TFLOP/s of one device in the compute dtype");
  plan.add_option("--efficiency", command.efficiency, "share of them that a step's products reach; 0.5");
  plan.add_option("--memory-bandwidth", command.memory_bandwidth, "GB/s of one device's memory");
  plan.add_option("--bandwidth", command.bandwidth, "GB/s that a device sends to others of its node");
  plan.add_option("--latency", command.latency, "microseconds of a message within a node");
  plan.add_option("--network-bandwidth", command.network_bandwidth, "GB/s that a device sends to other nodes");
  plan.add_option("--network-latency", command.network_latency, "microseconds of a message between nodes");
  plan.add_option("--node", command.node, "devices a node");
}

void add_workload_options(CLI::App& plan, PlanCommand& command) {
  plan.add_option("--set", command.settings, "override a key of the run file: section.key=value (repeatable)")
      ->allow_extra_args(false);
  plan.add_option("--batch", command.batch,
                  "sequences a step over all devices; a preset's: 2048, the paper's 2^20 tokens");
  plan.add_option("--micro-batch", command.micro_batch, "sequences a forward pass; 0: as many as fit");
  plan.add_option("--encoder-length", command.encoder_length, "encoder tokens of a sequence; a preset's: 512");
  plan.add_option("--decoder-length", command.decoder_length, "decoder tokens of a sequence; a preset's: 114");
  plan.add_option("--dtype", command.dtype, "compute precision")->check(CLI::IsMember({"bf16", "fp32"}));
  plan.add_option("--optimizer", command.optimizer, "adafactor, adamw or muon")
      ->check(CLI::IsMember({"adafactor", "adamw", "muon"}));
  plan.add_option("--dropped", command.dropped, "share of rows that find no slot at an expert")->capture_default_str();
  plan.add_option("--imbalance", command.imbalance, "rows of the busiest rank's experts over the mean")
      ->capture_default_str();
}

void add_options(CLI::App* plan, const std::shared_ptr<PlanCommand>& command) {
  plan->add_option("model", command->subject, "preset, or run file (TOML)")->required();
  add_cluster_options(*plan, *command);
  add_workload_options(*plan, *command);
  plan->add_option("--show", command->num_shown, "layouts to list of those that fit and of the others")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  plan->add_option("--layout", command->layout, "plan this one alone: DATAxEXPERTxTENSOR, such as 2x4x1");
  plan->add_option("--picture", command->picture,
                   "draw who has which part of weights, experts and batch in the best layout: an SVG file");
  plan->add_option(
      "--scaling", command->scaling,
      "weak and strong scaling over doubling device counts, such as 8..2048; --batch is that of the first");
  plan->add_option("--measured", command->measured,
                   "a run's folder: its steps' speed and expert loads are replayed by --scaling");
  plan->add_flag("--json", command->json, "print one JSON object with all layouts, nothing else");
}

}  // namespace

Json plan_as_json(const std::vector<std::string>& arguments) {
  CLI::App app;
  app.set_help_flag();
  const auto command = std::make_shared<PlanCommand>();
  add_options(&app, command);
  try {
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::ParseError& error) {
    throw Error(join("plan: ", error.what()));
  }
  command->json = true;
  return run(*command);
}

void add_plan(CLI::App& app) {
  const auto command = std::make_shared<PlanCommand>();
  auto* plan = app.add_subcommand("plan", "Plan a model over many devices: memory, traffic and time of each layout");
  add_options(plan, command);
  plan->footer(
      "Examples:\n  switchyard plan switch-xxl --devices 512 --device tpu-v3\n"
      "  switchyard plan run.toml --devices 4 --device cpu --json\n"
      "  switchyard plan switch-base-128 --scaling 8..2048 --measured runs/mini --json\n"
      "  switchyard plan switch-base-128 --devices 16 --memory 24 --flops 40 --bandwidth 12 --network-bandwidth 3");
  plan->callback([command] {
    if (const auto json = run(*command); !json.is_null()) std::cout << json.dump() << "\n";
  });
}

}  // namespace switchyard
