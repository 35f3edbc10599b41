#include "kernels/cross_entropy.h"

#include <omp.h>

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

// The running maximum (in units of log2) and sum of powers of one row, lane by lane.
struct RowSums {
  F32x16 largest, sum;
};

}  // namespace

template <class T>
void cross_entropy_forward(const VocabularyProblem& problem, const T* hidden, const T* weight, float* log_partition,
                           float* label_logit, float* largest) {
  const int64_t panels = num_panels(problem), rows = problem.rows, d_model = problem.d_model;
  const int64_t chunks = std::min(kMaxChunks, panels);
  const F32x16 to_log2 = splat(problem.scale * kLog2e);
  Scratch<float> sums(chunks * rows * 2 * kLanes);
  std::fill_n(label_logit, rows, 0.0f);
#pragma omp parallel
  {
    Scratch<T> packed(kPanel * d_model), staging(kPanel * d_model);
    Scratch<float> tile(kRowBlock * kPanel);
#pragma omp for schedule(dynamic, 1)
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      float* chunk_sums = sums.data() + chunk * rows * 2 * kLanes;
      for (int64_t row = 0; row < rows; ++row) {
        store(chunk_sums + row * 2 * kLanes, splat(kLowest));
        store(chunk_sums + row * 2 * kLanes + kLanes, splat(0.0f));
      }
      for (int64_t panel = panels * chunk / chunks; panel < panels * (chunk + 1) / chunks; ++panel) {
        pack_panel(problem, weight, panel, staging.data(), packed.data());
        const int64_t first = panel * kPanel, count = std::min(kPanel, problem.vocab - first);
        for (int64_t start = 0; start < rows; start += kRowBlock) {
          const int64_t block = std::min(kRowBlock, rows - start);
          brgemm(block, kPanel, d_model, d_model, kPanel, kPanel, false, hidden + start * d_model, packed.data(),
                 tile.data());
          for (int64_t row = 0; row < block; ++row) {
            float* logits = tile.data() + row * kPanel;
            const int64_t column = problem.label[start + row] - first;
            if (column >= 0 && column < count) label_logit[start + row] = problem.scale * logits[column];
            F32x16 x[4];
            for (int64_t part = 0; part < 4; ++part) x[part] = load(logits + part * kLanes) * to_log2;
            if (count < kPanel) {
              for (int64_t part = 0; part < 4; ++part) store(logits + part * kLanes, x[part]);
              std::fill(logits + count, logits + kPanel, kLowest);
              for (int64_t part = 0; part < 4; ++part) x[part] = load(logits + part * kLanes);
            }
            float* state = chunk_sums + (start + row) * 2 * kLanes;
            const F32x16 before = load(state);
            const F32x16 after = max(max(before, max(x[0], x[1])), max(x[2], x[3]));
            F32x16 sum = load(state + kLanes) * exp2_finite(before - after);
            sum = sum + (exp2_finite(x[0] - after) + exp2_finite(x[1] - after)) +
                  (exp2_finite(x[2] - after) + exp2_finite(x[3] - after));
            store(state, after);
            store(state + kLanes, sum);
          }
        }
      }
    }
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
      float top = kLowest;
      for (int64_t chunk = 0; chunk < chunks; ++chunk)
        top = std::max(top, reduce_max(load(sums.data() + (chunk * rows + row) * 2 * kLanes)));
      F32x16 sum = splat(0.0f);
      for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        const float* state = sums.data() + (chunk * rows + row) * 2 * kLanes;
        sum = fma(load(state + kLanes), exp2_finite(load(state) - splat(top)), sum);
      }
      log_partition[row] = kLn2 * (top + std::log2(reduce_add(sum)));
      largest[row] = kLn2 * top;
    }
    brgemm_release();
  }
}

template <class T>
void cross_entropy_backward(const VocabularyProblem& problem, const T* hidden, const T* weight,
                            const float* log_partition, float grad_sum, float grad_z, T* grad_hidden, T* grad_weight) {
  const int64_t panels = num_panels(problem), rows = problem.rows, d_model = problem.d_model;
  const int64_t slices = d_model / kPanel;
  // Panels handled together: their packed rows and their gradient sums stay in the second-level cache.
  const int64_t group_panels = std::clamp<int64_t>(65536 / (kPanel * d_model), 1, 4), group = group_panels * kPanel;
  const int64_t groups = (panels + group_panels - 1) / group_panels;
  // Each chunk has sums of grad_hidden of its own; fewer of them where they would be large.
  const int64_t chunks = std::min(groups, std::clamp<int64_t>((int64_t{16} << 20) / (rows * d_model), 4, kMaxChunks));
  const F32x16 to_log2 = splat(problem.scale * kLog2e);

  // hidden once more, as the second operand of grad_weight = grad_logits^T hidden: [slices][rows][64], rows in pairs.
  Scratch<T> hidden_panels(rows * d_model);
  Scratch<float> partial(grad_hidden != nullptr ? chunks * rows * d_model : 1);
#pragma omp parallel
  {
#pragma omp for schedule(static)
    for (int64_t slice = 0; slice < slices; ++slice)
      pack_rows(hidden + slice * kPanel, d_model, rows, kPanel, hidden_panels.data() + slice * rows * kPanel);

    Scratch<T> packed(group * d_model), weight_panels(group * d_model), staging(kPanel * d_model);
    Scratch<float> tile(kRowBlock * kPanel), weight_sums(group * d_model);
    Scratch<T> grads(kRowBlock * group), grads_transposed(group * kRowBlock), words(kRowBlock * kPanel);
#pragma omp for schedule(dynamic, 1)
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      float* hidden_sums = partial.data() + (grad_hidden != nullptr ? chunk * rows * d_model : 0);
      const int64_t first_group = groups * chunk / chunks;
      for (int64_t part = first_group; part < groups * (chunk + 1) / chunks; ++part) {
        const int64_t first_panel = part * group_panels, end_panel = std::min(panels, first_panel + group_panels);
        const int64_t width = (end_panel - first_panel) * kPanel;  // vocabulary entries of this group, padded
        for (int64_t panel = first_panel; panel < end_panel; ++panel) {
          const int64_t offset = (panel - first_panel) * kPanel;
          pack_panel(problem, weight, panel, staging.data(), packed.data() + offset * d_model);
          if (grad_hidden == nullptr) continue;
          const int64_t count = std::min(kPanel, problem.vocab - panel * kPanel);
          const T* source = count < kPanel ? staging.data() : weight + panel * kPanel * d_model;
          for (int64_t slice = 0; slice < slices; ++slice)
            pack_rows(source + slice * kPanel, d_model, kPanel, kPanel,
                      weight_panels.data() + (slice * width + offset) * kPanel);
        }
        for (int64_t start = 0; start < rows; start += kRowBlock) {
          const int64_t block = std::min(kRowBlock, rows - start);
          for (int64_t panel = first_panel; panel < end_panel; ++panel) {
            const int64_t offset = (panel - first_panel) * kPanel;
            brgemm(block, kPanel, d_model, d_model, kPanel, kPanel, false, hidden + start * d_model,
                   packed.data() + offset * d_model, tile.data());
            for (int64_t row = 0; row < block; ++row) {
              float* logits = tile.data() + row * kPanel;
              const int64_t label = problem.label[start + row];
              const float log_z = log_partition[start + row];
              // d/d(logit) = grad_sum (p - [label]) + 2 grad_z log_z p; one more factor of scale leads to the product.
              const F32x16 factor = splat(label < 0 ? 0.0f : problem.scale * (grad_sum + 2.0f * grad_z * log_z));
              const F32x16 shift = splat(-kLog2e * log_z);
              for (int64_t lane = 0; lane < kPanel; lane += kLanes)
                store(logits + lane, factor * exp2_finite(fma(load(logits + lane), to_log2, shift)));
              const int64_t column = label - panel * kPanel;
              if (column >= 0 && column < kPanel) logits[column] -= problem.scale * grad_sum;
              for (int64_t lane = 0; lane < kPanel; lane += kLanes)
                store(grads.data() + row * width + offset + lane, load(logits + lane));
            }
            if (grad_weight != nullptr) {
              T* columns = grads_transposed.data() + offset * block;
              if constexpr (sizeof(T) == sizeof(float)) {
                transpose_words(grads.data() + offset, width, block, kPanel, columns, block);
              } else {
                transpose_words(grads.data() + offset, width / 2, block, kPanel / 2, words.data(), block);
                for (int64_t pair = 0; pair < kPanel / 2; ++pair)
                  deinterleave(words.data() + pair * 2 * block, columns + 2 * pair * block,
                               columns + (2 * pair + 1) * block, block);
              }
            }
          }
          if (grad_hidden != nullptr)
            for (int64_t slice = 0; slice < slices; ++slice)
              brgemm(block, kPanel, width, width, kPanel, d_model, part > first_group, grads.data(),
                     weight_panels.data() + slice * width * kPanel, hidden_sums + start * d_model + slice * kPanel);
          if (grad_weight != nullptr)
            for (int64_t slice = 0; slice < slices; ++slice)
              brgemm(width, kPanel, block, block, kPanel, d_model, start > 0, grads_transposed.data(),
                     hidden_panels.data() + (slice * rows + start) * kPanel, weight_sums.data() + slice * kPanel);
        }
        if (grad_weight != nullptr) {
          const int64_t first = first_panel * kPanel, count = std::min(width, problem.vocab - first);
          for (int64_t i = 0; i < count * d_model; i += kLanes)
            store(grad_weight + first * d_model + i, load(weight_sums.data() + i));
        }
      }
    }
    if (grad_hidden != nullptr) {
#pragma omp for schedule(static)
      for (int64_t row = 0; row < rows; ++row)
        for (int64_t i = row * d_model; i < (row + 1) * d_model; i += kLanes) {
          F32x16 sum = load(partial.data() + i);
          for (int64_t chunk = 1; chunk < chunks; ++chunk)
            sum = sum + load(partial.data() + chunk * rows * d_model + i);
          store(grad_hidden + i, sum);
        }
    }
    brgemm_release();
  }
}

template void cross_entropy_forward(const VocabularyProblem&, const float*, const float*, float*, float*, float*);
template void cross_entropy_forward(const VocabularyProblem&, const BFloat16*, const BFloat16*, float*, float*, float*);
template void cross_entropy_backward(const VocabularyProblem&, const float*, const float*, const float*, float, float,
                                     float*, float*);
template void cross_entropy_backward(const VocabularyProblem&, const BFloat16*, const BFloat16*, const float*, float,
                                     float, BFloat16*, BFloat16*);

}  // namespace switchyard::kernels
