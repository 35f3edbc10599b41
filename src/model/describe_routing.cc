#include "base/error.h"
#include "model/routing_config.h"

namespace switchyard {
namespace {

std::string plural(int64_t count, const char* noun) { return join(count, " ", noun, count == 1 ? "" : "s"); }

std::string who_chooses(const RoutingConfig& routing) {
  if (routing.router == RouterKind::kHash)
    return join("a fixed hash of its id gives each token one of ", routing.num_experts, " experts; gate 1, no router");
  if (routing.router == RouterKind::kExpertChoice)
    return join("encoder: each of ", routing.num_experts,
                " experts takes the tokens of its group that give it the "
                "highest softmax probability, which scales its output; decoder: top-",
                routing.num_selected_experts);
  if (routing.router == RouterKind::kNoTokenLeftBehind)
    return join("each token takes the best of ", routing.num_experts, " experts that has a free slot, trying ",
                routing.num_reroute_stages, "; its ", to_word(routing.router_score), " probability scales the output");
  std::string text =
      join("each token takes its top-", routing.num_selected_experts, " of ", routing.num_experts,
           " experts by the router's f32 ", to_word(routing.router_score), ", which also scales the expert's output");
  if (routing.num_selected_experts > 1 && routing.gate_normalization != GateNormalization::kNone)
    text += join("; a token's gates are divided by their sum ",
                 routing.gate_normalization == GateNormalization::kBeforeDrop ? "before" : "after", " dropping");
  return text;
}

std::string second_experts(const RoutingConfig& routing) {
  if (routing.second_expert_policy == SecondExpertPolicy::kThreshold)
    return join("a further expert is used where its gate is above ", routing.second_expert_threshold);
  return join("a further expert is used in training with probability min(1, gate / ", routing.second_expert_threshold,
              "), in evaluation always");
}

std::string group_words(const RoutingConfig& routing) {
  if (routing.group_size == 0) return "one sequence";
  if (routing.group_rule == GroupRule::kExact)
    return join("as many whole sequences as fit ", routing.group_size, " encoder tokens, at least one");
  return join("about ", routing.group_size, " consecutive tokens: equal groups counted as ",
              to_word(routing.group_rule));
}

std::string padding_words(const RoutingConfig& routing) {
  if (routing.padding == PaddingRule::kRouted) return "padding routed and counted as text";
  if (routing.padding == PaddingRule::kCountedInLoad)
    return "padding takes no slot, but counts in the balance loss's f";
  return "padding left out";
}

std::string slot_words(const RoutingConfig& routing) {
  if (!routing.drop_tokens) return "dropless: every expert has as many slots as tokens come";
  if (routing.expert_capacity > 0)
    return join(plural(routing.expert_capacity, "slot"), " for each expert and group, in training and evaluation");
  const auto full = [&](bool training) {
    return routing.group_size == 0
               ? std::string()
               : join(" (", expert_capacity(routing, routing.group_size, training), " in a full group)");
  };
  return join("slots for each expert and group: its even share times ", routing.train_capacity_factor, " in training",
              full(true), ", times ", routing.eval_capacity_factor, " in evaluation", full(false), ", rounded ",
              routing.capacity_rounding == CapacityRounding::kHalfEven ? "half to even"
              : routing.capacity_rounding == CapacityRounding::kCeil   ? "up"
                                                                       : "down",
              ", at least ", routing.min_expert_capacity,
              routing.num_selected_experts > 1 ? "; the share is of tokens, each of which asks for several slots" : "");
}

std::string priority_words(const RoutingConfig& routing) {
  const bool many = routing.num_selected_experts > 1 || routing.router == RouterKind::kNoTokenLeftBehind;
  std::string text = "slots go ";
  if (routing.drop_priority == DropPriority::kBatch)
    text += "first to tokens with the highest probability";
  else if (routing.drop_priority == DropPriority::kExpert)
    text += "to the tokens that give the expert the highest probability";
  else if (routing.drop_priority == DropPriority::kToken)
    text += "left to right, token by token";
  else
    text += many ? "left to right, all first choices before all second ones" : "left to right";
  if (routing.causal_decoder &&
      (many || routing.drop_priority == DropPriority::kBatch || routing.drop_priority == DropPriority::kExpert))
    text += "; in the decoder token by token, so that none sees a later one";
  return text + "; a token without a slot passes by its residual alone";
}

std::string exploration_words(const RoutingConfig& routing) {
  if (routing.exploration == Exploration::kJitter && routing.jitter_noise > 0)
    return join("training multiplies the router's own copy of the input by U(1 - ", routing.jitter_noise, ", 1 + ",
                routing.jitter_noise, ")");
  if (routing.exploration == Exploration::kInputDropout)
    return join("training drops ", routing.router_dropout_rate, " of the router's own copy of the input");
  if (routing.exploration == Exploration::kSample)
    return join("training draws experts from softmax(logits / ", routing.sample_temperature, ")");
  return "no exploration: training and evaluation choose by the largest logit";
}

std::string loss_words(const RoutingConfig& routing) {
  std::string text = join("losses: balance ", routing.load_balance_loss_coef, " x N sum f P, f the share of ",
                          routing.load_balance_choices == LoadBalanceChoices::kFirst ? "first choices" : "all choices",
                          " before dropping");
  if (routing.load_balance_choices == LoadBalanceChoices::kMean) text += " over their number";
  text += ", over each " + std::string(to_word(routing.load_balance_scope));
  text += routing.load_balance_layers == LoadBalanceLayers::kSum    ? ", summed over layers"
          : routing.load_balance_layers == LoadBalanceLayers::kMean ? ", averaged over layers"
                                                                    : ", a stack's layers pooled as one";
  text += join("; z-loss ", routing.router_z_loss_coef);
  if (routing.importance_loss_coef > 0) text += join("; importance ", routing.importance_loss_coef);
  if (routing.load_loss_coef > 0) text += join("; load ", routing.load_loss_coef);
  return text;
}

}  // namespace

std::vector<std::string> describe_routing(const RoutingConfig& routing) {
  std::vector<std::string> words = {who_chooses(routing)};
  if (routing.router == RouterKind::kTopK && routing.num_selected_experts > 1 &&
      routing.second_expert_policy != SecondExpertPolicy::kAll)
    words.push_back(second_experts(routing));
  words.push_back("ties go to the lowest expert" +
                  std::string(routing.selection_dtype == PartDtype::kCompute
                                  ? ", among probabilities rounded to the compute dtype"
                                  : ", among fp32 logits"));
  words.push_back("tokens compete within a group of " + group_words(routing) + ", " + padding_words(routing));
  words.push_back(slot_words(routing));
  if (routing.drop_tokens && routing.router != RouterKind::kExpertChoice) words.push_back(priority_words(routing));
  words.push_back("decoding step by step drops no token");
  words.push_back(exploration_words(routing));
  words.push_back(loss_words(routing));
  if (routing.selection_bias_rate > 0)
    words.push_back(join("a bias for choosing, not for gates, moves by ", routing.selection_bias_rate,
                         " towards experts with less than the mean load after each step"));
  if (routing.router_bias) words.push_back("the router has a learnt bias");
  if (routing.shared_expert_d_ff > 0)
    words.push_back(join("a shared expert of width ", routing.shared_expert_d_ff, " takes every token"));
  return words;
}

}  // namespace switchyard
