// switchyard bench variants: every form of the sparse layer trains a few steps at one shape. switchyard bench routing:
// what the routers cost beside the experts' products.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randn.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>

#include "base/clock.h"
#include "base/config.h"
#include "base/interrupt.h"
#include "cli/commands.h"
#include "cli/compute_options.h"
#include "model/loss.h"
#include "model/routing_variants.h"
#include "ops/experts.h"
#include "train/step.h"

namespace switchyard {
namespace {

struct VariantsCommand {
  std::string model = "switch-mini-8";
  int64_t steps = 50, batch = 2;
  double learning_rate = 0.01;
  bool json = false;
  ComputeOptions compute;
};

struct RoutingCommand {
  std::vector<int64_t> tokens = {1024, 2048, 4096, 8192};
  int64_t d_model = 768, d_ff = 3072, num_experts = 128, repeats = 5;
  bool json = false;
  ComputeOptions compute;
};

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<int64_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

// Ids by Zipf's law over the vocabulary's first thousand, so that there is something to learn: their frequencies, and
// that the target repeats the input's beginning.
Batch synthetic_batch(int64_t rows, int64_t step) {
  constexpr double kIds = 1000.0;
  Batch batch{.batch_size = rows, .encoder_length = 512, .decoder_length = 114};
  NoiseStream noise({.seed = 1, .purpose = NoisePurpose::kShuffle, .step = static_cast<uint64_t>(step)});
  for (int64_t n = 0; n < rows * batch.encoder_length; ++n) {
    const auto id = 2 + static_cast<int32_t>(std::pow(kIds, static_cast<double>(noise.uniform())));
    batch.encoder_input_tokens.push_back(id);
    if (n % batch.encoder_length < batch.decoder_length) batch.decoder_target_tokens.push_back(id);
  }
  return batch;
}

struct VariantOutcome {
  std::string name;
  double milliseconds = 0, dropped = 0, left_behind = 0, utilization = 0, balance = 0, first_loss = 0, last_loss = 0;
  bool is_finite = true;
};

VariantOutcome train_variant(const VariantsCommand& command, const RoutingVariant& variant, at::ScalarType dtype) {
  const auto config = with_variant(preset(command.model), variant);
  OptimizerConfig optimizer_config;
  optimizer_config.learning_rate = command.learning_rate;
  optimizer_config.schedule = "constant";
  Learner learner(config, initialize(config, 0), optimizer_config, {.dtype = dtype});
  VariantOutcome outcome{.name = variant.name};
  std::vector<double> seconds;
  const int64_t window = std::max<int64_t>(1, command.steps / 10);
  for (int64_t step = 1; step <= command.steps && !interrupted(); ++step) {
    const auto batch = synthetic_batch(command.batch, step);
    const double start = steady_seconds();
    StepResult result;
    try {
      result = learner.update(batch, step);
    } catch (const NotFinite&) {
      outcome.is_finite = false;
      break;
    }
    seconds.push_back(steady_seconds() - start);
    const double value = result.cross_entropy;
    if (step <= window) outcome.first_loss += value / static_cast<double>(window);
    if (step <= command.steps - window) continue;
    const double share = 1.0 / static_cast<double>(static_cast<int64_t>(result.layers.size()) * window);
    outcome.last_loss += value / static_cast<double>(window);
    for (const auto& layer : result.layers) {
      const auto statistics = layer.statistics();
      outcome.dropped += share * statistics.dropped_fraction;
      outcome.left_behind += share * statistics.left_behind_fraction;
      outcome.utilization += share * statistics.expert_utilization;
      outcome.balance += share * layer.load_balance_loss.item<double>();
    }
  }
  outcome.milliseconds = 1e3 * median(seconds);
  return outcome;
}

void bench_variants(const VariantsCommand& command) {
  apply(command.compute);
  const auto dtype = dtype_of(command.compute.dtype.empty() ? "bf16" : command.compute.dtype);
  catch_interrupts();
  if (!command.json)
    std::printf("%-26s %9s %7s %9s %8s %8s %8s   %s\n", "variant", "ms/step", "ratio", "dropped", "no slot", "in use",
                "balance", "loss, first and last tenth");
  double plain = 0.0;
  bool all_learn = true;
  for (const auto& variant : routing_variants()) {
    if (interrupted()) break;
    const auto outcome = train_variant(command, variant, dtype);
    if (interrupted()) break;
    if (plain == 0.0) plain = outcome.milliseconds;
    const bool learns = outcome.is_finite && outcome.last_loss < outcome.first_loss;
    all_learn = all_learn && learns;
    if (command.json) {
      std::cout << Json{{"variant", outcome.name},
                        {"settings", variant.settings},
                        {"step_milliseconds", outcome.milliseconds},
                        {"ratio", outcome.milliseconds / plain},
                        {"dropped_fraction", outcome.dropped},
                        {"left_behind_fraction", outcome.left_behind},
                        {"expert_utilization", outcome.utilization},
                        {"load_balance_loss", outcome.balance},
                        {"first_loss", outcome.first_loss},
                        {"last_loss", outcome.last_loss},
                        {"finite", outcome.is_finite}}
                       .dump()
                << std::endl;
    } else {
      std::printf("%-26s %9.1f %6.2fx %8.2f%% %7.2f%% %7.1f%% %8.3f   %.4f -> %.4f%s\n", outcome.name.c_str(),
                  outcome.milliseconds, outcome.milliseconds / plain, 100 * outcome.dropped, 100 * outcome.left_behind,
                  100 * outcome.utilization, outcome.balance, outcome.first_loss, outcome.last_loss,
                  learns ? "" : "   does not learn");
      std::fflush(stdout);
    }
  }
  if (interrupted()) throw CLI::RuntimeError(130);
  SY_CHECK(all_learn, "a variant's loss is not finite or did not fall; see the table");
}

ops::RouteOptions cost_options(const std::string& router, int64_t tokens, int64_t num_experts) {
  ops::RouteOptions options;
  options.group_size = tokens;
  const double factor = router == "top-2" || router == "expert choice" ? 2.0 : 1.25;
  options.expert_capacity = {
      static_cast<int64_t>(factor * static_cast<double>(tokens) / static_cast<double>(num_experts))};
  if (router == "top-2") {
    options.num_selected_experts = 2;
    options.gate_normalization = GateNormalization::kBeforeDrop;
  }
  if (router == "expert choice") options.router = RouterKind::kExpertChoice;
  if (router == "no token left behind") {
    options.router = RouterKind::kNoTokenLeftBehind;
    options.num_selected_experts = 4;
  }
  return options;
}

struct LayerCost {
  double product, routing, experts;  // forward and backward, seconds
};

LayerCost layer_cost(const RoutingCommand& command, const std::string& router, int64_t tokens, at::ScalarType dtype) {
  const auto x = at::randn({tokens, command.d_model}).to(dtype).requires_grad_();
  const auto weight = (at::randn({command.num_experts, command.d_model}) * 0.02).requires_grad_();
  const auto wi = (at::randn({command.num_experts, command.d_ff, command.d_model}) * 0.02).to(dtype).requires_grad_();
  const auto wo = (at::randn({command.num_experts, command.d_model, command.d_ff}) * 0.02).to(dtype).requires_grad_();
  const auto grad = at::randn({tokens, command.d_model}).to(dtype);
  const auto options = cost_options(router, tokens, command.num_experts);
  std::vector<double> product, routing, experts;
  for (int64_t repeat = 0; repeat < command.repeats + 1; ++repeat) {
    double start = steady_seconds();
    const auto lap = [&start] {
      const double now = steady_seconds(), seconds = now - start;
      start = now;
      return seconds;
    };
    const auto logits = ops::router_logits(x, weight, {}, {});
    double products = lap();
    const auto leaf = logits.detach().requires_grad_();
    const auto routed = ops::route(leaf, {}, options);
    double routes = lap();
    const auto gate = routed.gate.detach().requires_grad_();
    const auto y = ops::experts_feed_forward(x, gate, routed.dispatch, wi, {}, wo, {.key = {}});
    y.backward(grad);
    const double layer = lap();
    (routed.gate.mul(gate.grad()).sum() + routed.load_balance_loss).backward();
    routes += lap();
    logits.backward(leaf.grad());
    products += lap();
    for (const auto* tensor : {&x, &weight, &wi, &wo}) tensor->mutable_grad() = at::Tensor();
    if (repeat == 0) continue;
    product.push_back(products);
    routing.push_back(routes);
    experts.push_back(layer);
  }
  return {median(product), median(routing), median(experts)};
}

void bench_routing(const RoutingCommand& command) {
  apply(command.compute);
  const auto dtype = dtype_of(command.compute.dtype.empty() ? "bf16" : command.compute.dtype);
  if (!command.json)
    std::printf(
        "d_model %lld, d_ff %lld, %lld experts, %s; forward and backward, median of %lld\n%-22s %8s %12s %12s "
        "%12s %9s\n",
        static_cast<long long>(command.d_model), static_cast<long long>(command.d_ff),
        static_cast<long long>(command.num_experts), dtype == at::kBFloat16 ? "bf16" : "fp32",
        static_cast<long long>(command.repeats), "router", "tokens", "logits ms", "routing ms", "experts ms",
        "routing");
  for (const char* router : {"top-1", "top-2", "expert choice", "no token left behind"})
    for (const int64_t tokens : command.tokens) {
      const auto cost = layer_cost(command, router, tokens, dtype);
      const double share = cost.routing / (cost.product + cost.routing + cost.experts);
      if (command.json)
        std::cout << Json{{"router", router},
                          {"tokens", tokens},
                          {"logits_seconds", cost.product},
                          {"routing_seconds", cost.routing},
                          {"experts_seconds", cost.experts},
                          {"routing_share", share}}
                         .dump()
                  << std::endl;
      else
        std::printf("%-22s %8lld %12.2f %12.2f %12.2f %8.2f%%\n", router, static_cast<long long>(tokens),
                    1e3 * cost.product, 1e3 * cost.routing, 1e3 * cost.experts, 100 * share);
      std::fflush(stdout);
    }
}

}  // namespace

void add_bench_routing(CLI::App& bench) {
  auto variants_command = std::make_shared<VariantsCommand>();
  auto* variants = bench.add_subcommand("variants", "Train every form of the sparse layer a few steps; a table");
  variants->add_option("--model", variants_command->model, "preset")->capture_default_str();
  variants->add_option("--steps", variants_command->steps)->check(CLI::PositiveNumber)->capture_default_str();
  variants->add_option("--batch", variants_command->batch, "sequences of 512 + 114 tokens")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  variants->add_option("--learning-rate", variants_command->learning_rate)->capture_default_str();
  variants->add_flag("--json", variants_command->json, "print one JSON object a variant");
  add_compute_options(*variants, variants_command->compute);
  variants->callback([variants_command] { bench_variants(*variants_command); });

  auto routing_command = std::make_shared<RoutingCommand>();
  auto* routing = bench.add_subcommand("routing", "Time of routing beside the router's and the experts' products");
  routing->add_option("--tokens", routing_command->tokens, "one or more counts")->check(CLI::PositiveNumber);
  routing->add_option("--d-model", routing_command->d_model)->check(CLI::PositiveNumber)->capture_default_str();
  routing->add_option("--d-ff", routing_command->d_ff)->check(CLI::PositiveNumber)->capture_default_str();
  routing->add_option("--experts", routing_command->num_experts)->check(CLI::PositiveNumber)->capture_default_str();
  routing->add_option("--repeats", routing_command->repeats)->check(CLI::PositiveNumber)->capture_default_str();
  routing->add_flag("--json", routing_command->json, "print one JSON object a line");
  add_compute_options(*routing, routing_command->compute);
  routing->callback([routing_command] { bench_routing(*routing_command); });
}

}  // namespace switchyard
