#include "optim/adafactor_kernel.h"

#include <omp.h>

#include <algorithm>
#include <cmath>

#include "kernels/lanes.h"
#include "kernels/scratch.h"

namespace switchyard::kernels {
namespace {

constexpr int64_t kBlockElements = int64_t{1} << 16;
constexpr int64_t kMaxBlocks = 256;
// Up to here one thread works on a matrix alone: its gradient and weights then stay in that core's cache between
// passes.
constexpr int64_t kAloneElements = int64_t{1} << 19;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Rows of a matrix in blocks that depend on its sizes alone.
struct RowBlocks {
  explicit RowBlocks(const AdafactorMatrix& matrix)
      : rows(matrix.rows),
        rows_per_block(std::max(
            {int64_t{16}, kBlockElements / std::max<int64_t>(1, matrix.columns), ceil_div(matrix.rows, kMaxBlocks)})),
        count(ceil_div(matrix.rows, rows_per_block)) {}
  int64_t first(int64_t block) const { return block * rows_per_block; }
  int64_t end(int64_t block) const { return std::min(rows, first(block) + rows_per_block); }
  int64_t rows, rows_per_block, count;
};

// The end of a row, where fewer than sixteen values are left; zeros beyond.
template <class T>
F32x16 load_up_to(const T* from, int64_t count) {
  if (count >= kLanes) return load(from);
  float values[kLanes] = {};
  for (int64_t lane = 0; lane < count; ++lane) values[lane] = to_float(from[lane]);
  return load(values);
}

void store_up_to(float* to, F32x16 x, int64_t count) {
  if (count >= kLanes) return store(to, x);
  float values[kLanes];
  store(values, x);
  std::copy_n(values, count, to);
}

void store_up_to(BFloat16* to, F32x16 x, int64_t count) {
  if (count >= kLanes) return store(to, x);
  BFloat16 values[kLanes];
  store(values, x);
  std::copy_n(values, count, to);
}

// `body` with the row's gradient in the type that it has.
template <class Body>
void with_gradient(const AdafactorMatrix& matrix, int64_t row, Body body) {
  if (matrix.gradient != nullptr)
    body(matrix.gradient + row * matrix.columns);
  else
    body(matrix.bfloat16_gradient + row * matrix.columns);
}

// Sums of squares by row and column; of blocks of rows in any order.
class Reading {
 public:
  explicit Reading(const AdafactorMatrix& matrix) : blocks(matrix), matrix_(matrix), block_totals_(blocks.count) {
    if (matrix.v != nullptr) return;
    sums_.rows.resize(matrix.rows);
    partial_columns_.resize(blocks.count * matrix.columns);
  }

  void add(int64_t block) {
    float* column_sums = matrix_.v == nullptr ? partial_columns_.data() + block * matrix_.columns : nullptr;
    for (int64_t row = blocks.first(block); row < blocks.end(block); ++row)
      with_gradient(matrix_, row, [&](const auto* gradient) {
        F32x16 row_sum = splat(0.0f);
        for (int64_t column = 0; column < matrix_.columns; column += kLanes) {
          const int64_t count = matrix_.columns - column;
          const F32x16 g = load_up_to(gradient + column, count);
          row_sum = fma(g, g, row_sum);
          if (column_sums != nullptr)
            store_up_to(column_sums + column, fma(g, g, load_up_to(column_sums + column, count)), count);
        }
        const float sum = reduce_add(row_sum);
        block_totals_[block] += sum;
        if (column_sums != nullptr) sums_.rows[row] = sum;
      });
  }

  GradientSums finish() {
    for (const double total : block_totals_) sums_.total += total;
    if (matrix_.v != nullptr) return std::move(sums_);
    sums_.columns.resize(matrix_.columns);
    for (int64_t block = 0; block < blocks.count; ++block)
      for (int64_t column = 0; column < matrix_.columns; ++column)
        sums_.columns[column] += partial_columns_[block * matrix_.columns + column];
    return std::move(sums_);
  }

  const RowBlocks blocks;

 private:
  const AdafactorMatrix& matrix_;
  GradientSums sums_;
  std::vector<float> partial_columns_;  // [blocks, columns]
  std::vector<double> block_totals_;
};

// One matrix's update in phases; within a phase blocks of rows are independent of each other.
class Update {
 public:
  Update(const AdafactorMatrix& matrix, const GradientSums& sums, const AdafactorStep& step)
      : blocks(matrix),
        matrix_(matrix),
        step_(step),
        update_squares_(blocks.count),
        parameter_squares_(blocks.count),
        knows_parameter_(*matrix.parameter_squares >= 0.0) {
    if (is_factored()) blend_moments(sums);
    is_idle_ = is_factored() && sums.total == 0.0 && matrix.shrink == 1.0;
  }

  bool is_idle() const { return is_idle_; }

  // Phase 1: this block's sums of squares of the update, and of the parameter where they are not known; elementwise
  // moments. |g| * column_factor is at most sqrt(rows / (1 - beta2)), so that its square is safe in f32; a row factor's
  // square is not, and is f64.
  void add_squares(int64_t block) {
    if (!is_factored()) add_elementwise(block);
    for (int64_t row = blocks.first(block); row < blocks.end(block); ++row) {
      if (is_factored()) update_squares_[block] += update_square(row) * row_factor_[row] * row_factor_[row];
      if (!knows_parameter_) parameter_squares_[block] += parameter_square(row);
    }
  }

  // After phase 1, by one thread.
  void finish_squares() {
    double update = 0.0, parameter = 0.0;
    for (const double sum : update_squares_) update += sum;
    for (const double sum : parameter_squares_) parameter += sum;
    if (knows_parameter_) parameter = *matrix_.parameter_squares;
    std::fill(parameter_squares_.begin(), parameter_squares_.end(), 0.0);
    const double size = static_cast<double>(matrix_.rows) * static_cast<double>(matrix_.columns);
    rate_ = matrix_.rate;
    if (step_.scale_by_parameter) rate_ *= std::max(step_.epsilon2, std::sqrt(parameter / size));
    if (step_.clipping_threshold > 0) rate_ /= std::max(1.0, std::sqrt(update / size) / step_.clipping_threshold);
  }

  // Phase 2: applies the update.
  void apply(int64_t block) {
    for (int64_t row = blocks.first(block); row < blocks.end(block); ++row)
      with_gradient(matrix_, row, [&](const auto* gradient) {
        parameter_squares_[block] += is_factored() ? apply_factored(row, gradient) : apply_elementwise(row, gradient);
      });
  }

  // After phase 2, by one thread.
  void finish() {
    double squares = 0.0;
    for (const double sum : parameter_squares_) squares += sum;
    *matrix_.parameter_squares = squares;
  }

  const RowBlocks blocks;

 private:
  bool is_factored() const { return matrix_.v == nullptr; }
  float scale() const { return static_cast<float>(step_.gradient_scale); }

  void blend(float& moment, double mean_square) const {
    moment = static_cast<float>(step_.decay * moment + (1.0 - step_.decay) * (mean_square + step_.epsilon1));
  }

  // Moments, and both factors of the update, rsqrt(v_row / mean(v_row) * v_col), where v_row belongs to the smaller
  // side (T5X).
  void blend_moments(const GradientSums& sums) {
    const double squared_scale = step_.gradient_scale * step_.gradient_scale;
    const double per_row = squared_scale / static_cast<double>(matrix_.columns);
    const double per_column = squared_scale / static_cast<double>(matrix_.rows);
    double row_mean = 0.0, column_mean = 0.0;
    for (int64_t row = 0; row < matrix_.rows; ++row) {
      blend(matrix_.row_moment[row], sums.rows[row] * per_row);
      row_mean += matrix_.row_moment[row] / static_cast<double>(matrix_.rows);
    }
    for (int64_t column = 0; column < matrix_.columns; ++column) {
      blend(matrix_.column_moment[column], sums.columns[column] * per_column);
      column_mean += matrix_.column_moment[column] / static_cast<double>(matrix_.columns);
    }
    const bool rows_are_fewer = matrix_.rows <= matrix_.columns;
    row_factor_ = factors({matrix_.row_moment, static_cast<size_t>(matrix_.rows)}, rows_are_fewer ? row_mean : 1.0);
    column_factor_ =
        factors({matrix_.column_moment, static_cast<size_t>(matrix_.columns)}, rows_are_fewer ? 1.0 : column_mean);
  }

  static std::vector<float> factors(std::span<const float> moments, double mean) {
    std::vector<float> result;
    for (const float moment : moments) result.push_back(static_cast<float>(1.0 / std::sqrt(moment / mean)));
    return result;
  }

  double update_square(int64_t row) const {
    F32x16 sum = splat(0.0f);
    with_gradient(matrix_, row, [&](const auto* gradient) {
      for (int64_t column = 0; column < matrix_.columns; column += kLanes) {
        const int64_t count = matrix_.columns - column;
        const F32x16 scaled =
            load_up_to(gradient + column, count) * splat(scale()) * load_up_to(column_factor_.data() + column, count);
        sum = fma(scaled, scaled, sum);
      }
    });
    return reduce_add(sum);
  }

  double parameter_square(int64_t row) const {
    const float* parameter = matrix_.parameter + row * matrix_.columns;
    F32x16 sum = splat(0.0f);
    for (int64_t column = 0; column < matrix_.columns; column += kLanes) {
      const F32x16 p = load_up_to(parameter + column, matrix_.columns - column);
      sum = fma(p, p, sum);
    }
    return reduce_add(sum);
  }

  // Returns the sum of squares of the row's new values, as parameter_square() sums them.
  template <class Gradient>
  double apply_factored(int64_t row, const Gradient* gradient) const {
    const F32x16 factor = splat(static_cast<float>(rate_ * row_factor_[row] * step_.gradient_scale));
    return rewrite(row, [&](int64_t column, int64_t count) {
      return load_up_to(gradient + column, count) * load_up_to(column_factor_.data() + column, count) * factor;
    });
  }

  template <class Gradient>
  double apply_elementwise(int64_t row, const Gradient* gradient) const {
    const float* v = matrix_.v + row * matrix_.columns;
    const auto factor = static_cast<float>(rate_ * step_.gradient_scale);
    return rewrite(row, [&](int64_t column, int64_t count) {
      float update[kLanes] = {};
      for (int64_t lane = 0; lane < std::min(kLanes, count); ++lane)
        update[lane] = to_float(gradient[column + lane]) / std::sqrt(v[column + lane]) * factor;
      return load(update);
    });
  }

  // parameter * shrink - update, and its copy.
  template <class UpdateAt>
  double rewrite(int64_t row, UpdateAt update_at) const {
    float* parameter = matrix_.parameter + row * matrix_.columns;
    BFloat16* copy = matrix_.copy == nullptr ? nullptr : matrix_.copy + row * matrix_.columns;
    const F32x16 shrink = splat(static_cast<float>(matrix_.shrink));
    F32x16 sum = splat(0.0f);
    for (int64_t column = 0; column < matrix_.columns; column += kLanes) {
      const int64_t count = matrix_.columns - column;
      const F32x16 p = load_up_to(parameter + column, count) * shrink - update_at(column, count);
      sum = fma(p, p, sum);
      store_up_to(parameter + column, p, count);
      if (copy != nullptr) store_up_to(copy + column, p, count);
    }
    return reduce_add(sum);
  }

  void add_elementwise(int64_t block) {
    const auto kept = static_cast<float>(step_.decay), added = static_cast<float>(1.0 - step_.decay);
    const auto epsilon = static_cast<float>(step_.epsilon1);
    for (int64_t row = blocks.first(block); row < blocks.end(block); ++row)
      with_gradient(matrix_, row, [&](const auto* gradient) {
        float* __restrict v = matrix_.v + row * matrix_.columns;
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int64_t column = 0; column < matrix_.columns; ++column) {
          const float g = to_float(gradient[column]) * scale();
          v[column] = kept * v[column] + added * (g * g + epsilon);
          sum += g * g / v[column];
        }
        update_squares_[block] += sum;
      });
  }

  const AdafactorMatrix& matrix_;
  const AdafactorStep& step_;
  std::vector<float> row_factor_, column_factor_;
  std::vector<double> update_squares_, parameter_squares_;  // [block]
  const bool knows_parameter_;
  bool is_idle_ = false;
  double rate_ = 0.0;
};

// `work` on every matrix, by all threads together where it is large, else by one each.
template <class Work>
void for_each_matrix(std::span<const AdafactorMatrix> matrices, Work work) {
  std::vector<size_t> alone;
  for (size_t index = 0; index < matrices.size(); ++index)
    if (matrices[index].rows * matrices[index].columns <= kAloneElements)
      alone.push_back(index);
    else
      work(index, /*is_alone=*/false);
  RegionErrors errors;
#pragma omp parallel for schedule(dynamic, 1)
  for (size_t index = 0; index < alone.size(); ++index) errors.run([&] { work(alone[index], /*is_alone=*/true); });
  errors.rethrow();
}

}  // namespace

std::vector<GradientSums> adafactor_read(std::span<const AdafactorMatrix> matrices) {
  std::vector<GradientSums> sums(matrices.size());
  for_each_matrix(matrices, [&](size_t index, bool is_alone) {
    Reading reading(matrices[index]);
#pragma omp parallel for schedule(static) if (!is_alone)
    for (int64_t block = 0; block < reading.blocks.count; ++block) reading.add(block);
    sums[index] = reading.finish();
  });
  return sums;
}

void adafactor_update(std::span<const AdafactorMatrix> matrices, std::span<const GradientSums> sums,
                      const AdafactorStep& step) {
  for_each_matrix(matrices, [&](size_t index, bool is_alone) {
    Update update(matrices[index], sums[index], step);
    if (update.is_idle()) return;
    const int64_t num_blocks = update.blocks.count;
    // Each thread has the same blocks in both passes, and goes backwards in the second, to begin with what the first
    // has left in its cache.
#pragma omp parallel if (!is_alone)
    {
      const int64_t thread = omp_get_thread_num(), num_threads = omp_get_num_threads();
      const int64_t begin = thread * num_blocks / num_threads, end = (thread + 1) * num_blocks / num_threads;
      for (int64_t block = begin; block < end; ++block) update.add_squares(block);
#pragma omp barrier
#pragma omp single
      update.finish_squares();
      for (int64_t block = end; block-- > begin;) update.apply(block);
    }
    update.finish();
  });
}

}  // namespace switchyard::kernels
