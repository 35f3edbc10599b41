#include "kernels/cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "kernels/brgemm.h"
#include "kernels/lanes.h"
#include "kernels/pack.h"
#include "kernels/scratch.h"

namespace switchyard::kernels {
namespace {

constexpr int64_t kPanel = 64;      // vocabulary entries of a packed panel: brgemm's widest
constexpr int64_t kRowBlock = 128;  // rows of a tile
constexpr int64_t kMaxChunks =
    16;  // parts of the vocabulary with sums of their own, so that threads may take them in any order
constexpr float kLog2e = std::numbers::log2e_v<float>;
constexpr float kLn2 = std::numbers::ln2_v<float>;
constexpr float kLowest = -1e30f;  // below every logit, and finite: differences of two stay numbers

int64_t num_panels(const VocabularyProblem& problem) { return (problem.vocab + kPanel - 1) / kPanel; }

// Rows [panel * 64, ...) of weight as brgemm's second operand for hidden * weight^T; rows beyond the vocabulary are
// zero.
template <class T>
void pack_panel(const VocabularyProblem& problem, const T* weight, int64_t panel, T* staging, T* packed) {
  const int64_t first = panel * kPanel, count = std::min(kPanel, problem.vocab - first), d_model = problem.d_model;
  const T* rows = weight + first * d_model;
  if (count < kPanel) {
    std::copy_n(rows, count * d_model, staging);
    std::fill_n(staging + count * d_model, (kPanel - count) * d_model, T{});
    rows = staging;
  }
  pack_transposed(rows, d_model, kPanel, d_model, packed);
}

// A row's state in the forward pass: sixteen running maxima in units of log2, then sixteen sums of powers against them.
constexpr int64_t kState = 2 * kLanes;

// Takes one row's logits of a panel, `count` of them real, into its state. Overwrites them.
void accumulate_powers(float* logits, int64_t count, F32x16 to_log2, float* state) {
  F32x16 x[4];
  for (int64_t part = 0; part < 4; ++part) x[part] = load(logits + part * kLanes) * to_log2;
  if (count < kPanel) {
    for (int64_t part = 0; part < 4; ++part) store(logits + part * kLanes, x[part]);
    std::fill(logits + count, logits + kPanel, kLowest);
    for (int64_t part = 0; part < 4; ++part) x[part] = load(logits + part * kLanes);
  }
  const F32x16 before = load(state);
  const F32x16 after = max(max(before, max(x[0], x[1])), max(x[2], x[3]));
  F32x16 sum = load(state + kLanes) * exp2_finite(before - after);
  sum = sum + (exp2_finite(x[0] - after) + exp2_finite(x[1] - after)) +
        (exp2_finite(x[2] - after) + exp2_finite(x[3] - after));
  store(state, after);
  store(state + kLanes, sum);
}

// Joins the states of a row, one a chunk and `stride` apart: its log-partition and its largest logit.
void join_states(const float* state, int64_t chunks, int64_t stride, float& log_partition, float& largest) {
  float top = kLowest;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) top = std::max(top, reduce_max(load(state + chunk * stride)));
  F32x16 sum = splat(0.0f);
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const float* own = state + chunk * stride;
    sum = fma(load(own + kLanes), exp2_finite(load(own) - splat(top)), sum);
  }
  log_partition = kLn2 * (top + std::log2(reduce_add(sum)));
  largest = kLn2 * top;
}

}  // namespace

template <class T>
void cross_entropy_forward(const VocabularyProblem& problem, const T* hidden, const T* weight, float* log_partition,
                           float* label_logit, float* largest) {
  const int64_t panels = num_panels(problem), rows = problem.rows, d_model = problem.d_model;
  const int64_t chunks = std::min(kMaxChunks, panels);
  const F32x16 to_log2 = splat(problem.scale * kLog2e);
  Scratch<float> states(chunks * rows * kState);
  ThreadScratch<T> packed(kPanel * d_model), staging(kPanel * d_model);
  ThreadScratch<float> tiles(kRowBlock * kPanel);
  std::fill_n(label_logit, rows, 0.0f);
  RegionErrors errors;  // brgemm generates code at first
#pragma omp parallel
  {
    float* tile = tiles.data();
#pragma omp for schedule(dynamic, 1)
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      float* chunk_states = states.data() + chunk * rows * kState;
      for (int64_t row = 0; row < rows; ++row) {
        store(chunk_states + row * kState, splat(kLowest));
        store(chunk_states + row * kState + kLanes, splat(0.0f));
      }
      for (int64_t panel = panels * chunk / chunks; panel < panels * (chunk + 1) / chunks; ++panel) {
        pack_panel(problem, weight, panel, staging.data(), packed.data());
        const int64_t first = panel * kPanel, count = std::min(kPanel, problem.vocab - first);
        for (int64_t start = 0; start < rows; start += kRowBlock) {
          const int64_t block = std::min(kRowBlock, rows - start);
          errors.run([&] {
            brgemm(block, kPanel, d_model, d_model, kPanel, kPanel, false, hidden + start * d_model, packed.data(),
                   tile);
          });
          for (int64_t row = 0; row < block; ++row) {
            float* logits = tile + row * kPanel;
            const int64_t column = problem.label[start + row] - first;
            if (column >= 0 && column < count) label_logit[start + row] = problem.scale * logits[column];
            accumulate_powers(logits, count, to_log2, chunk_states + (start + row) * kState);
          }
        }
      }
    }
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows; ++row)
      join_states(states.data() + row * kState, chunks, rows * kState, log_partition[row], largest[row]);
    brgemm_release();
  }
  errors.rethrow();
}

namespace {

// A backward pass: what it is asked for and the memory that it works in. The vocabulary is cut into spans of panels,
// whose packed rows and gradient sums stay in the second-level cache, and the spans into chunks, each with sums of
// grad_hidden of its own.
template <class T>
struct Backward {
  const VocabularyProblem& problem;
  const T* hidden;
  const T* weight;
  const float* log_partition;
  float grad_sum, grad_z;
  T* grad_hidden;  // null: not wanted; grad_weight too
  T* grad_weight;

  int64_t rows = problem.rows, d_model = problem.d_model, panels = num_panels(problem), slices = d_model / kPanel;
  int64_t span_panels = std::clamp<int64_t>(65536 / (kPanel * d_model), 1, 4), span_size = span_panels * kPanel;
  int64_t spans = (panels + span_panels - 1) / span_panels;
  // Fewer of them where their sums would be large.
  int64_t chunks = std::min(spans, std::clamp<int64_t>((int64_t{16} << 20) / (rows * d_model), 4, kMaxChunks));

  // hidden once more, as the second operand of grad_weight = grad_logits^T hidden: [slices][rows][64], rows in pairs.
  Scratch<T> hidden_panels{rows * d_model};
  Scratch<float> hidden_sums{grad_hidden != nullptr ? chunks * rows * d_model : 1};  // [chunks][rows][d_model]

  // Of a span, for each thread.
  ThreadScratch<T> staging{kPanel * d_model};           // a last panel filled up with zeros
  ThreadScratch<T> packed{span_size * d_model};         // weight as the second operand of hidden weight^T
  ThreadScratch<T> weight_panels{span_size * d_model};  // and of grad_logits weight: [slices][span][64]
  ThreadScratch<float> tile{kRowBlock * kPanel};
  ThreadScratch<T> grads{kRowBlock * span_size};             // [rows of a block][span]: gradients of logits
  ThreadScratch<T> grads_transposed{span_size * kRowBlock};  // [span][rows of a block]
  ThreadScratch<T> words{kRowBlock * kPanel};
  ThreadScratch<float> weight_sums{span_size * d_model};  // [span][d_model]
};

// Panels first .. end of the vocabulary; `width` entries, padded.
struct Span {
  int64_t first, end, width;
};

template <class T>
void pack_span(Backward<T>& pass, const Span& span) {
  for (int64_t panel = span.first; panel < span.end; ++panel) {
    const int64_t offset = (panel - span.first) * kPanel;
    pack_panel(pass.problem, pass.weight, panel, pass.staging.data(), pass.packed.data() + offset * pass.d_model);
    if (pass.grad_hidden == nullptr) continue;
    const bool is_whole = pass.problem.vocab - panel * kPanel >= kPanel;
    const T* source = is_whole ? pass.weight + panel * kPanel * pass.d_model : pass.staging.data();
    for (int64_t slice = 0; slice < pass.slices; ++slice)
      pack_rows(source + slice * kPanel, pass.d_model, kPanel, kPanel,
                pass.weight_panels.data() + (slice * span.width + offset) * kPanel);
  }
}

// to [rows][stride] = the gradients of a tile's logits: d/d(logit) = grad_sum (p - [label]) + 2 grad_z log_z p, times
// one factor of scale that leads to the product. The tile's first row is row `start`, its first entry that of `panel`.
template <class T>
void differentiate_tile(const Backward<T>& pass, int64_t panel, int64_t start, int64_t rows, float* tile, T* to,
                        int64_t stride) {
  const float scale = pass.problem.scale;
  const F32x16 to_log2 = splat(scale * kLog2e);
  for (int64_t row = 0; row < rows; ++row) {
    float* logits = tile + row * kPanel;
    const int64_t label = pass.problem.label[start + row];
    const float log_z = pass.log_partition[start + row];
    const F32x16 factor = splat(label < 0 ? 0.0f : scale * (pass.grad_sum + 2.0f * pass.grad_z * log_z));
    const F32x16 shift = splat(-kLog2e * log_z);
    for (int64_t lane = 0; lane < kPanel; lane += kLanes)
      store(logits + lane, factor * exp2_finite(fma(load(logits + lane), to_log2, shift)));
    const int64_t column = label - panel * kPanel;
    if (column >= 0 && column < kPanel) logits[column] -= scale * pass.grad_sum;
    for (int64_t lane = 0; lane < kPanel; lane += kLanes) store(to + row * stride + lane, load(logits + lane));
  }
}

// from [rows][64] with a row stride to [64][rows].
void transpose_tile(const float* from, int64_t stride, int64_t rows, float*, float* to) {
  transpose_words(from, stride, rows, kPanel, to, rows);
}
void transpose_tile(const BFloat16* from, int64_t stride, int64_t rows, BFloat16* words, BFloat16* to) {
  transpose_words(from, stride / 2, rows, kPanel / 2, words, rows);
  for (int64_t pair = 0; pair < kPanel / 2; ++pair)
    deinterleave(words + pair * 2 * rows, to + 2 * pair * rows, to + (2 * pair + 1) * rows, rows);
}

// The gradients of the logits of `block` rows from `start` on, in both operand forms.
template <class T>
void make_grads(Backward<T>& pass, const Span& span, int64_t start, int64_t block) {
  for (int64_t panel = span.first; panel < span.end; ++panel) {
    const int64_t offset = (panel - span.first) * kPanel;
    brgemm(block, kPanel, pass.d_model, pass.d_model, kPanel, kPanel, false, pass.hidden + start * pass.d_model,
           pass.packed.data() + offset * pass.d_model, pass.tile.data());
    T* grads = pass.grads.data() + offset;
    differentiate_tile(pass, panel, start, block, pass.tile.data(), grads, span.width);
    if (pass.grad_weight != nullptr)
      transpose_tile(grads, span.width, block, pass.words.data(), pass.grads_transposed.data() + offset * block);
  }
}

// Adds a span's share to hidden_sums [rows][d_model] of its chunk, or begins them, and stores its rows of grad_weight.
template <class T>
void backward_span(Backward<T>& pass, const Span& span, bool is_first, float* hidden_sums) {
  const int64_t d_model = pass.d_model;
  pack_span(pass, span);
  for (int64_t start = 0; start < pass.rows; start += kRowBlock) {
    const int64_t block = std::min(kRowBlock, pass.rows - start);
    make_grads(pass, span, start, block);
    if (pass.grad_hidden != nullptr)
      for (int64_t slice = 0; slice < pass.slices; ++slice)
        brgemm(block, kPanel, span.width, span.width, kPanel, d_model, !is_first, pass.grads.data(),
               pass.weight_panels.data() + slice * span.width * kPanel, hidden_sums + start * d_model + slice * kPanel);
    if (pass.grad_weight != nullptr)
      for (int64_t slice = 0; slice < pass.slices; ++slice)
        brgemm(span.width, kPanel, block, block, kPanel, d_model, start > 0, pass.grads_transposed.data(),
               pass.hidden_panels.data() + (slice * pass.rows + start) * kPanel,
               pass.weight_sums.data() + slice * kPanel);
  }
  if (pass.grad_weight == nullptr) return;
  const int64_t first = span.first * kPanel, count = std::min(span.width, pass.problem.vocab - first);
  const float* sums = pass.weight_sums.data();
  for (int64_t i = 0; i < count * d_model; i += kLanes) store(pass.grad_weight + first * d_model + i, load(sums + i));
}

// One row of grad_hidden: its sums of all chunks.
template <class T>
void join_hidden_sums(Backward<T>& pass, int64_t row) {
  for (int64_t i = row * pass.d_model; i < (row + 1) * pass.d_model; i += kLanes) {
    F32x16 sum = load(pass.hidden_sums.data() + i);
    for (int64_t chunk = 1; chunk < pass.chunks; ++chunk)
      sum = sum + load(pass.hidden_sums.data() + chunk * pass.rows * pass.d_model + i);
    store(pass.grad_hidden + i, sum);
  }
}

}  // namespace

template <class T>
void cross_entropy_backward(const VocabularyProblem& problem, const T* hidden, const T* weight,
                            const float* log_partition, float grad_sum, float grad_z, T* grad_hidden, T* grad_weight) {
  Backward<T> pass{problem, hidden, weight, log_partition, grad_sum, grad_z, grad_hidden, grad_weight};
  RegionErrors errors;
#pragma omp parallel
  {
#pragma omp for schedule(static)
    for (int64_t slice = 0; slice < pass.slices; ++slice)
      pack_rows(hidden + slice * kPanel, pass.d_model, pass.rows, kPanel,
                pass.hidden_panels.data() + slice * pass.rows * kPanel);
#pragma omp for schedule(dynamic, 1)
    for (int64_t chunk = 0; chunk < pass.chunks; ++chunk) {
      float* hidden_sums = pass.hidden_sums.data() + (grad_hidden != nullptr ? chunk * pass.rows * pass.d_model : 0);
      const int64_t first_span = pass.spans * chunk / pass.chunks;
      for (int64_t number = first_span; number < pass.spans * (chunk + 1) / pass.chunks; ++number) {
        const int64_t first = number * pass.span_panels, end = std::min(pass.panels, first + pass.span_panels);
        errors.run([&] {
          backward_span(pass, {first, end, (end - first) * kPanel}, number == first_span, hidden_sums);
        });
      }
    }
    if (grad_hidden != nullptr) {
#pragma omp for schedule(static)
      for (int64_t row = 0; row < pass.rows; ++row) join_hidden_sums(pass, row);
    }
    brgemm_release();
  }
  errors.rethrow();
}

template void cross_entropy_forward(const VocabularyProblem&, const float*, const float*, float*, float*, float*);
template void cross_entropy_forward(const VocabularyProblem&, const BFloat16*, const BFloat16*, float*, float*, float*);
template void cross_entropy_backward(const VocabularyProblem&, const float*, const float*, const float*, float, float,
                                     float*, float*);
template void cross_entropy_backward(const VocabularyProblem&, const BFloat16*, const BFloat16*, const float*, float,
                                     float, BFloat16*, BFloat16*);

}  // namespace switchyard::kernels
