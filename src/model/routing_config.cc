#include "model/routing_config.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/config.h"
#include "base/error.h"

namespace switchyard {
namespace {

constexpr int64_t kMaxSize = int64_t{1} << 26;

void check_range(const char* name, int64_t value, int64_t low, int64_t high) {
  SY_CHECK(value >= low && value <= high, "model.", name, " is ", value, ", expected ", low, " to ", high);
}

void check_range(const char* name, double value, double low, double high) {
  SY_CHECK(value >= low && value <= high, "model.", name, " is ", value, ", expected ", low, " to ", high);
}

}  // namespace

void apply_convention(RoutingConfig& routing, Convention convention) {
  routing.convention = convention;
  if (convention == Convention::kMesh) {
    routing.group_rule = GroupRule::kMesh;
    routing.group_size = 1024;
    routing.padding = PaddingRule::kCountedInLoad;
    routing.gate_normalization = GateNormalization::kBeforeDrop;
    routing.second_expert_policy = SecondExpertPolicy::kSampled;
    routing.causal_decoder = false;
  } else if (convention == Convention::kT5x) {
    routing.group_rule = GroupRule::kT5x;
    routing.group_size = 4096;
    routing.capacity_rounding = CapacityRounding::kHalfEven;
    routing.capacity_within_group = false;
    routing.padding = PaddingRule::kRouted;
    routing.exploration = Exploration::kArgmax;
    routing.load_balance_choices = LoadBalanceChoices::kAll;
    routing.load_balance_layers = LoadBalanceLayers::kMean;
    routing.causal_decoder = false;
  } else if (convention == Convention::kHf) {
    routing.group_size = 0;
    if (routing.expert_capacity == 0) routing.expert_capacity = 64;
    routing.selection_dtype = PartDtype::kCompute;
    routing.padding = PaddingRule::kRouted;
    routing.load_balance_layers = LoadBalanceLayers::kPooled;
    routing.load_balance_loss_coef = routing.router_z_loss_coef = 1e-3;
  }
}

void read_convention(RoutingConfig& routing, const ConfigDocument& document, const std::string& section) {
  if (!document.sections.contains(section) || !document.sections.at(section).contains("convention")) return;
  Convention convention{};
  config_detail::read_value(document.sections.at(section).at("convention"), document.place(section + ".convention"),
                            convention);
  apply_convention(routing, convention);
}

void validate_routing(const RoutingConfig& routing) {
  check_range("num_experts", routing.num_experts, int64_t{0}, kMaxSize);
  check_range("train_capacity_factor", routing.train_capacity_factor, 1e-3, 1e6);
  check_range("eval_capacity_factor", routing.eval_capacity_factor, 1e-3, 1e6);
  check_range("min_expert_capacity", routing.min_expert_capacity, int64_t{1}, kMaxSize);
  check_range("expert_capacity", routing.expert_capacity, int64_t{0}, kMaxSize);
  check_range("group_size", routing.group_size, int64_t{0}, kMaxSize);
  check_range("num_reroute_stages", routing.num_reroute_stages, int64_t{1}, kMaxSize);
  check_range("shared_expert_d_ff", routing.shared_expert_d_ff, int64_t{0}, kMaxSize);
  check_range("second_expert_threshold", routing.second_expert_threshold, 1e-9, 1e6);
  check_range("sample_temperature", routing.sample_temperature, 1e-6, 1e6);
  check_range("selection_bias_rate", routing.selection_bias_rate, 0.0, 1.0);
  for (const auto& [name, rate] :
       {std::pair{"jitter_noise", routing.jitter_noise}, std::pair{"router_dropout_rate", routing.router_dropout_rate}})
    SY_CHECK(rate >= 0 && rate < 1, "model.", name, " is ", rate, ", expected 0 to less than 1");
  for (const auto& [name, coefficient] : {std::pair{"load_balance_loss_coef", routing.load_balance_loss_coef},
                                          std::pair{"router_z_loss_coef", routing.router_z_loss_coef},
                                          std::pair{"importance_loss_coef", routing.importance_loss_coef},
                                          std::pair{"load_loss_coef", routing.load_loss_coef}})
    check_range(name, coefficient, 0.0, 1e6);
  SY_CHECK(routing.num_selected_experts >= 1 &&
               (routing.num_experts == 0 || routing.num_selected_experts <= routing.num_experts),
           "model.num_selected_experts is ", routing.num_selected_experts, ", expected 1 to the ", routing.num_experts,
           " experts of model.num_experts");
  const bool is_top_k = routing.router == RouterKind::kTopK;
  SY_CHECK(is_top_k || routing.router == RouterKind::kExpertChoice || routing.num_selected_experts == 1,
           "model.num_selected_experts is ", routing.num_selected_experts, " with router ", to_word(routing.router),
           ", which gives each token one expert");
  SY_CHECK(routing.selection_bias_rate == 0.0 || is_top_k, "model.selection_bias_rate is ", routing.selection_bias_rate,
           " with router ", to_word(routing.router), "; loss-free balancing is for top_k");
  SY_CHECK(routing.router != RouterKind::kHash || !routing.router_bias,
           "model.router_bias with router hash, which has no router");
  SY_CHECK(routing.router != RouterKind::kNoTokenLeftBehind || routing.drop_priority != DropPriority::kExpert,
           "model.drop_priority expert with router no_token_left_behind; expected choice, token or batch");
  SY_CHECK(routing.router != RouterKind::kHash || routing.drop_priority == DropPriority::kChoice ||
               routing.drop_priority == DropPriority::kToken,
           "model.drop_priority ", to_word(routing.drop_priority),
           " with router hash, which has no probabilities; expected choice or token");
}

int64_t expert_capacity(const RoutingConfig& routing, int64_t group_tokens, bool training, int64_t num_experts) {
  if (routing.expert_capacity > 0) return routing.expert_capacity;
  const double factor = training ? routing.train_capacity_factor : routing.eval_capacity_factor;
  // Multiplied before divided, as Mesh does: 1024 * 1.25 / 128 is exactly 10.
  const auto experts = static_cast<double>(num_experts > 0 ? num_experts : routing.num_experts);
  const double share = static_cast<double>(group_tokens) * factor / experts;
  const double rounded = routing.capacity_rounding == CapacityRounding::kCeil       ? std::ceil(share)
                         : routing.capacity_rounding == CapacityRounding::kHalfEven ? std::nearbyint(share)
                                                                                    : std::floor(share);
  // No expert can use more slots than its group has tokens; in other systems only buffers would be larger.
  const double bound = routing.capacity_within_group ? static_cast<double>(group_tokens) : 0x1p62;
  return std::max(routing.min_expert_capacity, static_cast<int64_t>(std::min(rounded, bound)));
}

}  // namespace switchyard
