#include "checkpoint/gguf_names.h"

#include <string_view>
#include <utility>

namespace switchyard {
namespace {

constexpr std::pair<std::string_view, std::string_view> kTables[] = {
    {"shared.weight", "token_embd.weight"},
    {"lm_head.weight", "output.weight"},
    {"encoder.final_layer_norm.weight", "enc.output_norm.weight"},
    {"decoder.final_layer_norm.weight", "dec.output_norm.weight"},
};

// Of a layer, without its number in the block: which it is, its module tells.
constexpr std::pair<std::string_view, std::string_view> kModules[] = {
    {"SelfAttention.relative_attention_bias.weight", "attn_rel_b.weight"},
    {"SelfAttention.q.weight", "attn_q.weight"},
    {"SelfAttention.k.weight", "attn_k.weight"},
    {"SelfAttention.v.weight", "attn_v.weight"},
    {"SelfAttention.o.weight", "attn_o.weight"},
    {"EncDecAttention.q.weight", "cross_attn_q.weight"},
    {"EncDecAttention.k.weight", "cross_attn_k.weight"},
    {"EncDecAttention.v.weight", "cross_attn_v.weight"},
    {"EncDecAttention.o.weight", "cross_attn_o.weight"},
    {"wi.weight", "ffn_up.weight"},
    {"wi_0.weight", "ffn_gate.weight"},
    {"wi_1.weight", "ffn_up.weight"},
    {"wo.weight", "ffn_down.weight"},
    {"experts.wi.weight", "ffn_up_exps.weight"},
    {"experts.wi_0.weight", "ffn_gate_exps.weight"},
    {"experts.wi_1.weight", "ffn_up_exps.weight"},
    {"experts.wo.weight", "ffn_down_exps.weight"},
    {"shared_expert.wi.weight", "ffn_up_shexp.weight"},
    {"shared_expert.wi_0.weight", "ffn_gate_shexp.weight"},
    {"shared_expert.wi_1.weight", "ffn_up_shexp.weight"},
    {"shared_expert.wo.weight", "ffn_down_shexp.weight"},
    {"router.classifier.weight", "ffn_gate_inp.weight"},
    {"router.classifier.bias", "ffn_gate_inp.bias"},
    {"router.selection_bias", "exp_probs_b.bias"},
};

}  // namespace

std::string gguf_name(const std::string& parameter) {
  for (const auto& [ours, theirs] : kTables)
    if (parameter == ours) return std::string(theirs);
  constexpr std::string_view kBlock = ".block.", kLayer = ".layer.";
  const auto block = parameter.find(kBlock), layer = parameter.find(kLayer);
  if (block == parameter.npos || layer == parameter.npos) return "";
  const bool is_decoder = parameter.starts_with("decoder");
  const auto number = parameter.substr(block + kBlock.size(), layer - block - kBlock.size());
  const std::string prefix = (is_decoder ? "dec.blk." : "enc.blk.") + number + ".";
  const char which = parameter[layer + kLayer.size()];
  std::string_view module = std::string_view(parameter).substr(layer + kLayer.size() + 2);
  if (module == "layer_norm.weight")
    return prefix +
           (which == '0'                 ? "attn_norm"
            : is_decoder && which == '1' ? "cross_attn_norm"
                                         : "ffn_norm") +
           ".weight";
  for (const std::string_view feed_forward : {"DenseReluDense.", "mlp."})
    if (module.starts_with(feed_forward)) module.remove_prefix(feed_forward.size());
  for (const auto& [ours, theirs] : kModules)
    if (module == ours) return prefix + std::string(theirs);
  return "";
}

}  // namespace switchyard
