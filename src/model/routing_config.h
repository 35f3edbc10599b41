// How tokens choose experts (Switch §2), every choice in which published systems differ, and their conventions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ops/routing_words.h"

namespace switchyard {

struct ConfigDocument;

// Capacity is counted within groups (routing_groups.h).
struct RoutingConfig {
  int64_t num_experts = 0;  // 0: every feed-forward layer is dense
  // A name that sets the fields below before the others are read: apply_convention().
  Convention convention = Convention::kPaper;

  // Who chooses.
  RouterKind router = RouterKind::kTopK;
  int64_t num_selected_experts = 1;  // k of top_k; 1 is Switch
  int64_t num_reroute_stages = 4;    // no_token_left_behind: choices tried, at most num_experts (Mesh)
  RouterScore router_score = RouterScore::kSoftmax;
  GateNormalization gate_normalization = GateNormalization::kNone;  // of k > 1 gates
  SecondExpertPolicy second_expert_policy = SecondExpertPolicy::kAll;
  double second_expert_threshold = 0.2;          // sampled: probability gate / threshold; threshold: gate above it
  double selection_bias_rate = 0.0;              // u of loss-free balancing, 0.001 in DeepSeek-V3; 0: no bias
  bool router_bias = false;                      // adds a learnt bias to the logits
  PartDtype selection_dtype = PartDtype::kFp32;  // compute: experts are chosen by probabilities in it (HF)
  // Who gets the slots.
  int64_t group_size = 1024;  // encoder tokens; see routing_groups.h. 0: each sequence is a group
  GroupRule group_rule = GroupRule::kExact;
  bool drop_tokens = true;              // false: dropless, as many slots as needed
  double train_capacity_factor = 1.25;  // expert_capacity = floor(group size * factor / num_experts), Switch eq. 3
  double eval_capacity_factor = 2.0;
  CapacityRounding capacity_rounding = CapacityRounding::kFloor;
  int64_t min_expert_capacity = 4;    // slots; expert_capacity is never below it
  bool capacity_within_group = true;  // nor, if true, above the group's size (Mesh), the minimum aside
  // Slots per expert and group in place of the factors (HF's convention); 0: use the factors.
  int64_t expert_capacity = 0;
  DropPriority drop_priority = DropPriority::kChoice;
  bool causal_decoder = true;  // the decoder gives slots token by token, so that no token sees a later one
  PaddingRule padding = PaddingRule::kIgnored;
  // Exploration in training.
  Exploration exploration = Exploration::kJitter;
  double jitter_noise = 1e-2;        // the router's copy of the input *= U(1 - e, 1 + e) (Switch App. C)
  double router_dropout_rate = 0.1;  // input_dropout: of the router's copy of the input (Mesh switch_dropout)
  double sample_temperature = 1.0;   // sample: experts drawn from softmax(logits / temperature)
  // Losses, each a sum over sparse layers unless load_balance_layers says otherwise.
  double load_balance_loss_coef = 1e-2;  // alpha of Switch eq. 4
  LoadBalanceChoices load_balance_choices = LoadBalanceChoices::kFirst;
  LoadBalanceScope load_balance_scope = LoadBalanceScope::kGroup;
  LoadBalanceLayers load_balance_layers = LoadBalanceLayers::kSum;
  double router_z_loss_coef = 0.0;    // ST-MoE eq. 5; off as in Switch
  double importance_loss_coef = 0.0;  // Shazeer et al. 2017, eq. 6-7
  double load_loss_coef = 0.0;        // Shazeer et al. 2017, App. A; noise of std 1 / num_experts (V-MoE)
  int64_t shared_expert_d_ff = 0;     // hidden width of a dense expert beside the routed ones; 0: none

  template <class Self, class Field>
  static void visit(Self& self, Field&& field) {
    field("num_experts", self.num_experts, "experts in each sparse layer; 0 for a dense model");
    field("convention", self.convention, "paper, mesh, t5x or hf: sets the routing keys in which they differ");
    field("router", self.router, "top_k, no_token_left_behind, expert_choice (encoder only) or hash");
    field("num_selected_experts", self.num_selected_experts,
          "experts a token of top_k; 1 is Switch. Capacity counts tokens: 2 want factor 2");
    field("num_reroute_stages", self.num_reroute_stages, "no_token_left_behind: experts that a token tries");
    field("router_score", self.router_score, "gates are softmax or sigmoid of the logits");
    field("gate_normalization", self.gate_normalization,
          "gates of several experts sum to 1: none, before_drop or after_drop");
    field("second_expert_policy", self.second_expert_policy, "further experts are used: all, sampled or threshold");
    field("second_expert_threshold", self.second_expert_threshold, "gate from which a further expert is sure");
    field("selection_bias_rate", self.selection_bias_rate, "step of loss-free balancing's bias; 0: no bias");
    field("router_bias", self.router_bias, "adds a bias to the router logits");
    field("selection_dtype", self.selection_dtype, "experts are chosen in fp32, or in the compute dtype (HF)");
    field("group_size", self.group_size,
          "encoder tokens whose sequences compete for slots together; 0: each sequence alone");
    field("group_rule", self.group_rule, "exact, or equal groups counted as mesh or t5x");
    field("drop_tokens", self.drop_tokens, "false: no capacity, nothing is dropped");
    field("train_capacity_factor", self.train_capacity_factor, "slots per expert over the even share, in training");
    field("eval_capacity_factor", self.eval_capacity_factor, "the same in evaluation");
    field("capacity_rounding", self.capacity_rounding, "floor, ceil or half_even");
    field("min_expert_capacity", self.min_expert_capacity, "fewest slots per expert and group");
    field("capacity_within_group", self.capacity_within_group, "no more slots than the group has tokens");
    field("expert_capacity", self.expert_capacity,
          "slots per expert and group, instead of the factors; 0 uses the factors");
    field("drop_priority", self.drop_priority, "slots go first by choice, token, batch (probability) or expert");
    field("causal_decoder", self.causal_decoder, "the decoder gives slots token by token");
    field("padding", self.padding, "ignored, counted_in_load or routed");
    field("exploration", self.exploration, "in training: jitter, argmax, input_dropout or sample");
    field("jitter_noise", self.jitter_noise, "router input jitter in training, 0 for none");
    field("router_dropout_rate", self.router_dropout_rate, "exploration input_dropout: rate");
    field("sample_temperature", self.sample_temperature, "exploration sample: temperature");
    field("load_balance_loss_coef", self.load_balance_loss_coef, "weight of each sparse layer's balance loss");
    field("load_balance_choices", self.load_balance_choices, "the balance loss counts first, all or mean of choices");
    field("load_balance_scope", self.load_balance_scope,
          "the balance loss is taken over each group, sequence or batch");
    field("load_balance_layers", self.load_balance_layers, "sum, mean or pooled over layers");
    field("router_z_loss_coef", self.router_z_loss_coef, "weight of each sparse layer's z-loss on router logits");
    field("importance_loss_coef", self.importance_loss_coef, "weight of the importance loss (2017 MoE)");
    field("load_loss_coef", self.load_loss_coef, "weight of the smooth load loss (2017 MoE)");
    field("shared_expert_d_ff", self.shared_expert_d_ff, "width of a shared expert beside the routed ones; 0: none");
  }
};

// Sets every field in which the convention differs from the paper's, which are the defaults; the others keep their
// values.
void apply_convention(RoutingConfig& routing, Convention convention);

// Applies the convention that a section names, if it does: to be called before the section's other keys are read.
// Throws Error for an unknown word.
void read_convention(RoutingConfig& routing, const ConfigDocument& document, const std::string& section);

// Throws Error naming the field (as model.FIELD) whose value is out of range.
void validate_routing(const RoutingConfig& routing);

// Slots per expert in a group of `group_tokens` of a layer with `num_experts`, 0 for the config's (Switch eq. 3;
// rounding and bounds as the fields say): an absolute expert_capacity if one is set; group_tokens if tokens are not
// dropped.
int64_t expert_capacity(const RoutingConfig& routing, int64_t group_tokens, bool training, int64_t num_experts = 0);

// What the configuration means, one sentence a choice, for people.
std::vector<std::string> describe_routing(const RoutingConfig& routing);

}  // namespace switchyard
