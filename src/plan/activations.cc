#include "plan/activations.h"

#include <algorithm>

namespace switchyard {
namespace {

constexpr double kWide = 4.0, kIndex = 8.0;  // bytes of an f32 and of an int64

// Sizes of a device's share of a micro-batch, as factors of the formulas.
struct Sizes {
  const Workload& workload;
  const Layout& layout;
  double s;                             // bytes of a value in the compute dtype
  double batch, d, inner, heads, d_ff;  // of one tensor rank: the first has the most
  double matrices;                      // of a feed-forward network: 2, gated 3
  double hidden;                        // hidden layers that are kept: 1, gated 2
  bool keeps_plain_hidden;              // plain ReLU: the kept layer is what the second product takes
  double vocab;                         // rows of a table that are here

  Sizes(const Workload& work, const Layout& ways, int64_t micro_batch)
      : workload(work),
        layout(ways),
        s(static_cast<double>(work.compute_bytes())),
        batch(static_cast<double>(micro_batch)),
        d(static_cast<double>(work.model.d_model)),
        inner(part(work.model.inner_size(), work.model.d_kv)),
        heads(inner / static_cast<double>(work.model.d_kv)),
        d_ff(part(work.model.d_ff)),
        matrices(work.model.gated ? 3 : 2),
        hidden(work.model.gated ? 2 : 1),
        keeps_plain_hidden(work.model.activation == Activation::kRelu && !work.model.gated),
        vocab(part(work.model.vocab_size)) {}

  double part(int64_t size, int64_t unit = 1) const {
    return static_cast<double>(even_slice(size, layout.tensor, 0, unit).size());
  }
  void add_gradients(PassSegment& segment, double values) const { segment.gradients += s * values; }
};

// A sublayer on `n` tokens reads the stream (f32, kept by its norm) and works on the normed input.
PassSegment sublayer(const char* name, const Sizes& z, double n) {
  return {.name = name,
          .saved = (kWide + z.s) * n * z.d,
          .forward_work = z.s * n * z.d,
          .backward_work = (2 * kWide + 2 * z.s) * n * z.d};
}

void add_attention(const Sizes& z, PassSegment& segment, double queries, double keys) {
  segment.saved += z.s * z.inner * (2 * queries + 2 * keys) + kWide * z.heads * queries;  // q, out, k, v; log-sum-exp
  segment.backward_work += z.s * z.inner * (2 * queries + 4 * keys);
  if (z.workload.model.dropout_rate > 0.0) segment.saved += z.s * keys * (z.inner + z.heads);  // scaled values, mask
}

// What routing keeps of n tokens and `rows` rows: logits and probabilities, and who went where.
void add_router(PassSegment& segment, double n, double rows, double num_experts) {
  segment.saved += 2 * kWide * n * num_experts + 2 * kIndex * n + (4 * kIndex + kWide) * rows;
  segment.backward_work += 2 * kWide * n * num_experts;
}

PassSegment self_attention(const Sizes& z, double n, const SparseSite* site) {
  auto segment = sublayer("self attention", z, n);
  add_attention(z, segment, n, n);
  z.add_gradients(segment, z.d * z.inner);
  if (site == nullptr) {
    z.add_gradients(segment, 3 * z.d * z.inner);
    return segment;
  }
  const double rows = routed_rows(z.workload, *site, static_cast<int64_t>(z.batch)),
               here = rows * z.workload.load_imbalance;
  const auto value = static_cast<double>(site->value_bytes), experts = static_cast<double>(site->num_experts);
  add_router(segment, n, rows, experts);
  segment.saved += value * (here * z.d + rows * 3 * z.inner);
  segment.gradients += value * std::max(1.0, experts / static_cast<double>(z.layout.expert)) * 3 * z.d * z.inner;
  return segment;
}

PassSegment cross_attention(const Sizes& z, double n, double encoder_tokens) {
  auto segment = sublayer("cross attention", z, n);
  add_attention(z, segment, n, encoder_tokens);
  z.add_gradients(segment, 2 * z.d * z.inner);
  z.add_gradients(segment, 2 * z.d * z.inner);
  segment.backward_work += z.s * encoder_tokens * z.d;
  return segment;
}

void add_networks(const Sizes& z, PassSegment& segment, double rows, double width, double num_networks) {
  segment.saved += z.s * z.hidden * rows * width;
  if (!z.keeps_plain_hidden) segment.forward_work += z.s * rows * width;
  segment.backward_work += z.s * rows * width * (z.hidden + (z.keeps_plain_hidden ? 0 : 1));
  z.add_gradients(segment, num_networks * z.matrices * z.d * width);
}

PassSegment dense_feed_forward(const Sizes& z, double n) {
  auto segment = sublayer("feed-forward", z, n);
  add_networks(z, segment, n, z.d_ff, 1);
  return segment;
}

PassSegment sparse_feed_forward(const Sizes& z, double n, const SparseSite& site) {
  auto segment = sublayer("experts", z, n);
  const double rows = routed_rows(z.workload, site, static_cast<int64_t>(z.batch)),
               here = rows * z.workload.load_imbalance;
  const auto experts = static_cast<double>(site.num_experts);
  add_router(segment, n, rows, experts);
  segment.saved += z.s * z.d * (here + rows);
  segment.backward_work += z.s * z.d * (here + rows);
  add_networks(z, segment, here, z.d_ff, std::max(1.0, experts / static_cast<double>(z.layout.expert)));
  if (const int64_t shared = z.workload.model.routing.shared_expert_d_ff; shared > 0)
    add_networks(z, segment, n, z.part(shared), 1);
  return segment;
}

// A look-up keeps ids; its gradient is a whole f32 table.
PassSegment look_up(const Sizes& z, double n) {
  return {.name = "embedding",
          .saved = kIndex * n,
          .table_gradient = kWide * z.vocab * z.d,
          .forward_work = kWide * n * z.d,
          .backward_work = kWide * n * z.d};
}

PassSegment final_norm(const Sizes& z, double n) {
  auto segment = sublayer("final norm", z, n);
  if (z.workload.model.dropout_rate > 0.0) segment.forward_work += z.s * n * z.d;
  return segment;
}

// No logits: states, their log-partitions and labels.
PassSegment cross_entropy(const Sizes& z, double n) {
  PassSegment segment{.name = "cross entropy",
                      .saved = (kWide + kIndex) * n,
                      .forward_work = z.s * n * z.d,
                      .backward_work = 3 * z.s * n * z.d};
  z.add_gradients(segment, z.vocab * z.d);
  return segment;
}

// A block, the segments from `first` on, that keeps its input alone. In its backward pass the rest is there again.
void keep_input_alone(std::vector<PassSegment>& segments, size_t first, double input_bytes) {
  double again = -input_bytes;
  for (size_t n = first; n < segments.size(); ++n) {
    again += segments[n].saved;
    segments[n].backward_work += again;
    segments[n].saved = n == first ? input_bytes : 0.0;
  }
}

void add_stack(const Sizes& z, bool is_decoder, std::vector<SparseSite> sites, std::vector<PassSegment>& segments) {
  const auto& model = z.workload.model;
  const double inputs = z.batch * static_cast<double>(z.workload.encoder_length);
  const double n = is_decoder ? z.batch * static_cast<double>(z.workload.decoder_length) : inputs;
  std::erase_if(sites, [&](const SparseSite& site) { return site.is_decoder != is_decoder; });
  size_t next = 0;
  segments.push_back(look_up(z, n));
  for (int64_t block = 0; block < (is_decoder ? model.num_decoder_layers : model.num_encoder_layers); ++block) {
    const size_t first = segments.size();
    segments.push_back(
        self_attention(z, n, model.has_sparse_attention(is_decoder, block) ? &sites.at(next++) : nullptr));
    if (is_decoder) segments.push_back(cross_attention(z, n, inputs));
    const bool is_sparse = is_decoder ? model.is_sparse_decoder_layer(block) : model.is_sparse_encoder_layer(block);
    segments.push_back(is_sparse ? sparse_feed_forward(z, n, sites.at(next++)) : dense_feed_forward(z, n));
    if (block < z.workload.recompute_blocks) keep_input_alone(segments, first, kWide * n * z.d);
  }
  segments.push_back(final_norm(z, n));
}

}  // namespace

std::vector<PassSegment> pass_segments(const Workload& workload, const Layout& layout, int64_t micro_batch) {
  const Sizes z(workload, layout, micro_batch);
  const auto sites = sparse_sites(workload);
  std::vector<PassSegment> segments;
  add_stack(z, /*is_decoder=*/false, sites, segments);
  add_stack(z, /*is_decoder=*/true, sites, segments);
  segments.push_back(cross_entropy(z, z.batch * static_cast<double>(workload.decoder_length)));
  return segments;
}

double activations(const std::vector<PassSegment>& segments) {
  double saved = 0;
  for (const auto& segment : segments) saved += segment.saved;
  return saved;
}

PassMemory pass_memory(const std::vector<PassSegment>& segments, GradientFate fate, bool is_bf16) {
  PassMemory memory;
  double saved = 0;
  for (const auto& segment : segments) {
    saved += segment.saved;
    memory.peak = std::max(memory.peak, saved + segment.forward_work);
  }
  const bool has_sums = fate == GradientFate::kAdded || fate == GradientFate::kAddedLater;
  const double widening = is_bf16 ? 2.0 : 1.0;
  double table = 0;  // of all look-ups together
  for (auto segment = segments.rbegin(); segment != segments.rend(); ++segment) {
    double work = segment->backward_work;
    // A second table is added to the first.
    (has_sums || table > 0 ? work : table) += segment->table_gradient;
    if (fate == GradientFate::kKept || fate == GradientFate::kAddedLater) {
      memory.gradients += segment->gradients;
    } else {
      work += segment->gradients;
      if (fate == GradientFate::kWidened) memory.gradients += widening * segment->gradients;
    }
    memory.peak = std::max(memory.peak, saved + memory.gradients + table + work);
    saved -= segment->saved;
  }
  memory.gradients += table;
  return memory;
}

}  // namespace switchyard
