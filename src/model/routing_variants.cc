#include "model/routing_variants.h"

#include "base/config.h"

namespace switchyard {

std::vector<RoutingVariant> routing_variants() {
  return {
      {"top-1", {}},
      {"top-1, no exploration", {"exploration = \"argmax\""}},
      {"top-1, input dropout", {"exploration = \"input_dropout\""}},
      {"top-1, sampled softmax", {"exploration = \"sample\""}},
      {"top-1, batch prioritised", {"drop_priority = \"batch\""}},
      {"top-1, experts keep best", {"drop_priority = \"expert\""}},
      {"top-1, dropless", {"drop_tokens = false"}},
      {"top-1, importance + load",
       {"load_balance_loss_coef = 0.0", "importance_loss_coef = 0.01", "load_loss_coef = 0.01"}},
      {"top-1, z-loss, sequence f", {"router_z_loss_coef = 0.001", "load_balance_scope = \"sequence\""}},
      {"top-1, bias balanced",
       {"router_score = \"sigmoid\"", "selection_bias_rate = 0.001", "load_balance_loss_coef = 0.0"}},
      {"top-1, shared expert", {"shared_expert_d_ff = 512"}},
      {"top-1, GEGLU experts", {"activation = \"gelu_new\"", "gated = true"}},
      {"top-1, 4 and 12 experts", {"encoder_num_experts = [4, 12]", "decoder_num_experts = [4, 12]"}},
      {"top-1, encoder only", {"decoder_sparse_step = 0"}},
      {"top-2 (MoE baseline)",
       {"num_selected_experts = 2", "gate_normalization = \"before_drop\"", "second_expert_policy = \"sampled\"",
        "train_capacity_factor = 2.0"}},
      {"top-2, threshold",
       {"num_selected_experts = 2", "gate_normalization = \"before_drop\"", "second_expert_policy = \"threshold\"",
        "train_capacity_factor = 2.0"}},
      {"top-2, gates as they are", {"num_selected_experts = 2", "train_capacity_factor = 2.0"}},
      {"no token left behind", {"router = \"no_token_left_behind\"", "train_capacity_factor = 1.0"}},
      {"expert choice", {"router = \"expert_choice\"", "train_capacity_factor = 2.0"}},
      {"expert choice, top-2 decoder",
       {"router = \"expert_choice\"", "train_capacity_factor = 2.0", "num_selected_experts = 2",
        "gate_normalization = \"before_drop\""}},
      {"hash", {"router = \"hash\""}},
      {"switch attention", {"encoder_attention_sparse_step = 2", "decoder_attention_sparse_step = 2"}},
      {"convention mesh", {"convention = \"mesh\""}},
      {"convention t5x", {"convention = \"t5x\""}},
      {"convention hf", {"convention = \"hf\""}},
  };
}

ModelConfig with_variant(const ModelConfig& base, const RoutingVariant& variant) {
  std::string text = "[model]\n";
  for (const auto& setting : variant.settings) text += setting + "\n";
  const auto document = parse_toml(text, variant.name);
  ModelConfig config = base;
  if (document.sections.at("model").contains("convention")) read_convention(config.routing, document, "model");
  read_section(config, document, "model");
  validate(config);
  return config;
}

}  // namespace switchyard
