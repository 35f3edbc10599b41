#include "optim/update_kernels.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/scratch.h"

namespace switchyard::kernels {
namespace {

constexpr int64_t kBlockElements = int64_t{1} << 16;
constexpr int64_t kMaxBlocks = 256;
// Up to here one thread updates a matrix alone: its gradient and weights then stay in that core's cache between passes.
constexpr int64_t kAloneElements = int64_t{1} << 19;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// One matrix's update in phases; within a phase blocks of whole rows are independent of each other.
class Update {
 public:
  Update(const AdafactorMatrix& matrix, const AdafactorStep& step) : matrix_(matrix), step_(step) {
    rows_per_block_ = std::max(
        {int64_t{16}, kBlockElements / std::max<int64_t>(1, matrix.columns), ceil_div(matrix.rows, kMaxBlocks)});
    num_blocks_ = ceil_div(matrix.rows, rows_per_block_);
    block_sums_.resize(num_blocks_);
    if (is_factored()) {
      partial_columns_.resize(num_blocks_ * matrix.columns);
      column_factor_.resize(matrix.columns);
      row_factor_.resize(matrix.rows);
    }
  }

  int64_t num_blocks() const { return num_blocks_; }
  bool is_factored() const { return matrix_.v == nullptr; }

  // Phase 1. Factored: rows' moments, and this block's sums over columns. Elementwise: moments and phase 2 in one.
  void add_moments(int64_t block) {
    if (!is_factored()) return add_elementwise(block);
    const auto scale = static_cast<float>(step_.gradient_scale);
    float* __restrict sums = partial_columns_.data() + block * matrix_.columns;
    std::fill_n(sums, matrix_.columns, 0.0f);
    for (int64_t row = first_row(block); row < end_row(block); ++row) {
      const float* __restrict gradient = matrix_.gradient + row * matrix_.columns;
      float row_sum = 0.0f;
#pragma omp simd reduction(+ : row_sum)
      for (int64_t column = 0; column < matrix_.columns; ++column) {
        const float g = gradient[column] * scale;
        sums[column] += g * g;
        row_sum += g * g;
      }
      blend(matrix_.row_moment[row], row_sum / static_cast<double>(matrix_.columns));
    }
  }

  // After phase 1, by one thread: columns' moments and both factors of the update, rsqrt(v_row / mean(v_row) * v_col),
  // where v_row belongs to the smaller side (T5X).
  void finish_moments() {
    if (!is_factored()) return;
    double column_mean = 0.0, row_mean = 0.0;
    std::vector<double> sums(matrix_.columns, 0.0);
    for (int64_t block = 0; block < num_blocks_; ++block)
      for (int64_t column = 0; column < matrix_.columns; ++column)
        sums[column] += partial_columns_[block * matrix_.columns + column];
    for (int64_t column = 0; column < matrix_.columns; ++column) {
      blend(matrix_.column_moment[column], sums[column] / static_cast<double>(matrix_.rows));
      column_mean += matrix_.column_moment[column];
    }
    for (int64_t row = 0; row < matrix_.rows; ++row) row_mean += matrix_.row_moment[row];
    const bool rows_are_fewer = matrix_.rows <= matrix_.columns;
    const double mean = rows_are_fewer ? row_mean / static_cast<double>(matrix_.rows)
                                       : column_mean / static_cast<double>(matrix_.columns);
    fill_factors(matrix_.row_moment, rows_are_fewer ? mean : 1.0, row_factor_);
    fill_factors(matrix_.column_moment, rows_are_fewer ? 1.0 : mean, column_factor_);
  }

  // Phase 2: this block's sums of squares of the update and of the parameter. |g| * column_factor is at most
  // sqrt(rows / (1 - beta2)), so that its square is safe in f32; a row factor's square is not, and is f64.
  void add_squares(int64_t block) {
    if (!is_factored()) return;
    const auto scale = static_cast<float>(step_.gradient_scale);
    const float* __restrict factors = column_factor_.data();
    Sums sums;
    for (int64_t row = first_row(block); row < end_row(block); ++row) {
      const float* __restrict gradient = matrix_.gradient + row * matrix_.columns;
      const float* __restrict parameter = matrix_.parameter + row * matrix_.columns;
      float update_sum = 0.0f, parameter_sum = 0.0f;
#pragma omp simd reduction(+ : update_sum, parameter_sum)
      for (int64_t column = 0; column < matrix_.columns; ++column) {
        const float scaled = gradient[column] * scale * factors[column];
        update_sum += scaled * scaled;
        parameter_sum += parameter[column] * parameter[column];
      }
      sums.update += update_sum * static_cast<double>(row_factor_[row]) * row_factor_[row];
      sums.parameter += parameter_sum;
    }
    block_sums_[block] = sums;
  }

  // After phase 2, by one thread.
  void finish_squares() {
    Sums sums;
    for (const auto& block : block_sums_) {
      sums.update += block.update;
      sums.parameter += block.parameter;
    }
    const double size = static_cast<double>(matrix_.rows) * static_cast<double>(matrix_.columns);
    rate_ = matrix_.rate;
    if (step_.scale_by_parameter) rate_ *= std::max(step_.epsilon2, std::sqrt(sums.parameter / size));
    if (step_.clipping_threshold > 0) rate_ /= std::max(1.0, std::sqrt(sums.update / size) / step_.clipping_threshold);
  }

  // Phase 3: applies the update.
  void apply(int64_t block) const {
    const auto scale = static_cast<float>(step_.gradient_scale);
    const auto shrink = static_cast<float>(matrix_.shrink);
    const float* __restrict factors = column_factor_.data();
    for (int64_t row = first_row(block); row < end_row(block); ++row) {
      const float* __restrict gradient = matrix_.gradient + row * matrix_.columns;
      float* __restrict parameter = matrix_.parameter + row * matrix_.columns;
      if (is_factored()) {
        const auto factor = static_cast<float>(rate_ * row_factor_[row]);
#pragma omp simd
        for (int64_t column = 0; column < matrix_.columns; ++column)
          parameter[column] = parameter[column] * shrink - gradient[column] * scale * factors[column] * factor;
      } else {
        const float* __restrict v = matrix_.v + row * matrix_.columns;
        const auto factor = static_cast<float>(rate_);
#pragma omp simd
        for (int64_t column = 0; column < matrix_.columns; ++column)
          parameter[column] = parameter[column] * shrink - gradient[column] * scale / std::sqrt(v[column]) * factor;
      }
    }
  }

 private:
  struct Sums {
    double update = 0.0, parameter = 0.0;
  };

  int64_t first_row(int64_t block) const { return block * rows_per_block_; }
  int64_t end_row(int64_t block) const { return std::min(matrix_.rows, first_row(block) + rows_per_block_); }

  void blend(float& moment, double mean_square) const {
    moment = static_cast<float>(step_.decay * moment + (1.0 - step_.decay) * (mean_square + step_.epsilon1));
  }

  static void fill_factors(const float* moments, double mean, std::vector<float>& factors) {
    for (size_t i = 0; i < factors.size(); ++i) factors[i] = static_cast<float>(1.0 / std::sqrt(moments[i] / mean));
  }

  void add_elementwise(int64_t block) {
    const auto scale = static_cast<float>(step_.gradient_scale);
    const auto kept = static_cast<float>(step_.decay), added = static_cast<float>(1.0 - step_.decay);
    const auto epsilon = static_cast<float>(step_.epsilon1);
    Sums sums;
    for (int64_t row = first_row(block); row < end_row(block); ++row) {
      const float* __restrict gradient = matrix_.gradient + row * matrix_.columns;
      const float* __restrict parameter = matrix_.parameter + row * matrix_.columns;
      float* __restrict v = matrix_.v + row * matrix_.columns;
      float update_sum = 0.0f, parameter_sum = 0.0f;
#pragma omp simd reduction(+ : update_sum, parameter_sum)
      for (int64_t column = 0; column < matrix_.columns; ++column) {
        const float g = gradient[column] * scale;
        v[column] = kept * v[column] + added * (g * g + epsilon);
        const float update = g / std::sqrt(v[column]);
        update_sum += update * update;
        parameter_sum += parameter[column] * parameter[column];
      }
      sums.update += update_sum;
      sums.parameter += parameter_sum;
    }
    block_sums_[block] = sums;
  }

  const AdafactorMatrix& matrix_;
  const AdafactorStep& step_;
  int64_t rows_per_block_ = 0, num_blocks_ = 0;
  std::vector<float> partial_columns_;  // [num_blocks, columns]
  std::vector<float> column_factor_, row_factor_;
  std::vector<Sums> block_sums_;
  double rate_ = 0.0;
};

void run_alone(Update& update) {
  for (int64_t block = 0; block < update.num_blocks(); ++block) update.add_moments(block);
  update.finish_moments();
  for (int64_t block = 0; block < update.num_blocks(); ++block) update.add_squares(block);
  update.finish_squares();
  for (int64_t block = 0; block < update.num_blocks(); ++block) update.apply(block);
}

// The second pass runs backwards, to begin with what the first has left in the cache.
void run_together(Update& update) {
  const int64_t num_blocks = update.num_blocks();
#pragma omp parallel
  {
#pragma omp for schedule(static)
    for (int64_t block = 0; block < num_blocks; ++block) update.add_moments(block);
#pragma omp single
    update.finish_moments();
#pragma omp for schedule(static)
    for (int64_t block = 0; block < num_blocks; ++block) update.add_squares(num_blocks - 1 - block);
#pragma omp single
    update.finish_squares();
#pragma omp for schedule(static)
    for (int64_t block = 0; block < num_blocks; ++block) update.apply(block);
  }
}

}  // namespace

void adafactor_update(std::span<const AdafactorMatrix> matrices, const AdafactorStep& step) {
  std::vector<const AdafactorMatrix*> alone;
  for (const auto& matrix : matrices) {
    if (matrix.rows * matrix.columns <= kAloneElements) {
      alone.push_back(&matrix);
    } else {
      Update update(matrix, step);
      run_together(update);
    }
  }
  RegionErrors errors;
#pragma omp parallel for schedule(dynamic, 1)
  for (size_t index = 0; index < alone.size(); ++index)
    errors.run([&] {
      Update update(*alone[index], step);
      run_alone(update);
    });
  errors.rethrow();
}

void adamw_update(float* __restrict parameter, const float* __restrict gradient, float* __restrict m,
                  float* __restrict v, int64_t size, const AdamWStep& step) {
  const auto scale = static_cast<float>(step.gradient_scale), shrink = static_cast<float>(step.shrink);
  const auto kept1 = static_cast<float>(step.beta1), added1 = static_cast<float>(1.0 - step.beta1);
  const auto kept2 = static_cast<float>(step.beta2), added2 = static_cast<float>(1.0 - step.beta2);
  const auto root_correction2 = static_cast<float>(1.0 / std::sqrt(step.correction2));
  const auto rate = static_cast<float>(step.rate / step.correction1), epsilon = static_cast<float>(step.epsilon);
#pragma omp parallel for simd schedule(static)
  for (int64_t i = 0; i < size; ++i) {
    const float g = gradient[i] * scale;
    m[i] = kept1 * m[i] + added1 * g;
    v[i] = kept2 * v[i] + added2 * g * g;
    parameter[i] = parameter[i] * shrink - rate * m[i] / (std::sqrt(v[i]) * root_correction2 + epsilon);
  }
}

double square_sum(const float* values, int64_t size) {
  const int64_t num_blocks = ceil_div(size, kBlockElements);
  std::vector<double> sums(num_blocks);
#pragma omp parallel for schedule(static) if (num_blocks > 1)
  for (int64_t block = 0; block < num_blocks; ++block) {
    double sum = 0.0;
    const int64_t end = std::min(size, (block + 1) * kBlockElements);
#pragma omp simd reduction(+ : sum)
    for (int64_t i = block * kBlockElements; i < end; ++i) sum += static_cast<double>(values[i]) * values[i];
    sums[block] = sum;
  }
  double total = 0.0;
  for (const double sum : sums) total += sum;
  return total;
}

}  // namespace switchyard::kernels
