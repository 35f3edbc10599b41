#include "plan/workload.h"

#include <algorithm>

#include "base/error.h"
#include "model/flops.h"
#include "model/routing_groups.h"

namespace switchyard {
namespace {

void check_range(const char* option, double value, double lowest, double highest) {
  SY_CHECK(value >= lowest && value <= highest, option, " ", value, ": expected ", lowest, " to ", highest);
}

BatchShape shape_of(const Workload& workload) {
  return {workload.batch_size, workload.encoder_length, workload.decoder_length};
}

}  // namespace

void validate(const Workload& workload) {
  validate(workload.model);
  check_range("--batch", static_cast<double>(workload.batch_size), 1, 1 << 30);
  check_range("--micro-batch", static_cast<double>(workload.micro_batch_size), 0, 1 << 30);
  check_range("--encoder-length", static_cast<double>(workload.encoder_length), 1, 1 << 24);
  check_range("--decoder-length", static_cast<double>(workload.decoder_length), 1, 1 << 24);
  check_range("--dropped", workload.dropped_fraction, 0.0, 1.0);
  check_range("--imbalance", workload.load_imbalance, 1.0, 1e6);
}

BatchShare batch_share(const Workload& workload, const Layout& layout) {
  BatchShare share;
  const int64_t ranks = layout.data * layout.expert;
  share.unit = sequences_per_cut(workload.model, shape_of(workload));
  share.num_groups = (workload.batch_size + share.unit - 1) / share.unit;
  const int64_t groups = (share.num_groups + ranks - 1) / ranks;
  share.sequences = std::min(workload.batch_size, groups * share.unit);
  for (int64_t parts = groups;; parts = (parts + 1) / 2) {
    share.micro_batches.insert(share.micro_batches.begin(), std::min(share.sequences, parts * share.unit));
    if (parts <= 1) return share;
  }
}

std::vector<SparseSite> sparse_sites(const Workload& workload) {
  const auto& model = workload.model;
  std::vector<SparseSite> sites;
  for (const bool is_decoder : {false, true}) {
    const int64_t layers = is_decoder ? model.num_decoder_layers : model.num_encoder_layers;
    SparseSite site{.is_decoder = is_decoder, .length = is_decoder ? workload.decoder_length : workload.encoder_length};
    for (int64_t block = 0; block < layers; ++block) {
      if (model.has_sparse_attention(is_decoder, block)) {
        site.is_attention = true;
        site.num_experts = model.routing.num_experts;
        site.value_bytes = model.attention_expert_dtype == PartDtype::kFp32 ? 4 : workload.compute_bytes();
        site.out_width = 3 * model.inner_size();
        sites.push_back(site);
      }
      if (is_decoder ? model.is_sparse_decoder_layer(block) : model.is_sparse_encoder_layer(block)) {
        site.is_attention = false;
        site.num_experts = model.layer_num_experts(is_decoder, block);
        site.value_bytes = workload.compute_bytes();
        site.out_width = model.d_model;
        sites.push_back(site);
      }
    }
  }
  return sites;
}

double routed_rows(const Workload& workload, const SparseSite& site, int64_t sequences) {
  const auto& routing = workload.model.routing;
  const auto tokens = static_cast<double>(sequences * site.length);
  const int64_t group = group_tokens(routing, site.num_experts, shape_of(workload), site.length);
  const double groups = tokens / static_cast<double>(group);
  const auto slots = static_cast<double>(expert_capacity(routing, group, /*training=*/true, site.num_experts)) *
                     static_cast<double>(site.num_experts) * groups;
  if (routing.router == RouterKind::kExpertChoice && !site.is_decoder)
    return std::min(slots, tokens * static_cast<double>(site.num_experts));
  const bool one = routing.router == RouterKind::kHash || routing.router == RouterKind::kNoTokenLeftBehind;
  const double choices = one ? 1.0 : static_cast<double>(std::min(routing.num_selected_experts, site.num_experts));
  double rows = tokens * choices * (1.0 - workload.dropped_fraction);
  if (routing.drop_tokens) rows = std::min(rows, slots);
  return rows;
}

double computed_flops(const Workload& workload) {
  const auto& model = workload.model;
  const auto inputs = static_cast<double>(workload.encoder_length),
             targets = static_cast<double>(workload.decoder_length);
  const double scores = static_cast<double>(model.num_encoder_layers) * inputs * inputs +
                        static_cast<double>(model.num_decoder_layers) * (targets * targets + inputs * targets);
  // Switch's count charges the keys and values of cross attention to decoder tokens; they are made of encoder tokens.
  const double keys_and_values = static_cast<double>(model.num_decoder_layers) * 2 *
                                 static_cast<double>(model.d_model * model.inner_size()) * (inputs - targets);
  return forward_flops(model, workload.encoder_length, workload.decoder_length) +
         router_flops(model, workload.encoder_length, workload.decoder_length) +
         2.0 * static_cast<double>(model.inner_size()) * scores + 2.0 * keys_and_values;
}

}  // namespace switchyard
