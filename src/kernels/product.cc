#include "kernels/product.h"

#include <algorithm>
#include <vector>

#include "kernels/brgemm.h"
#include "kernels/lanes.h"
#include "kernels/pack.h"
#include "kernels/scratch.h"

#ifdef SWITCHYARD_LANES_AVX512
#include <immintrin.h>
#endif

namespace switchyard::kernels {
namespace {

constexpr int64_t kPanel = 64;      // columns of a packed panel: brgemm's widest
constexpr int64_t kRowBlock = 128;  // rows of a tile
constexpr int64_t kMaxRows = 1024;  // rows for which a panel is packed once
constexpr int64_t kFewRows = 8;     // up to here the matrix's rows are read as they lie, without packing,
constexpr int64_t kFewBytes = 16384;  // if the few rows stay in the first-level cache
constexpr int64_t kMinParallel = 1 << 16;  // multiplications below which one thread is faster

struct Item {
  int64_t group, first_row, rows, panel;
};

template <Epilogue kEpilogue, class T>
void store_tile(const float* tile, int64_t rows, T* c, int64_t stride) {
  for (int64_t row = 0; row < rows; ++row, tile += kPanel, c += stride)
    for (int64_t i = 0; i < kPanel; i += 2 * kLanes) {
      F32x16 low = load(tile + i), high = load(tile + i + kLanes);
      if (kEpilogue == Epilogue::kRelu) {
        low = max(splat(0.0f), low);
        high = max(splat(0.0f), high);
      } else if (kEpilogue == Epilogue::kAdd) {
        low = low + load(c + i);
        high = high + load(c + i + kLanes);
      }
      store_wide(c + i, low, high);
    }
}

template <class T>
void store_tile(Epilogue epilogue, const float* tile, int64_t rows, T* c, int64_t stride) {
  switch (epilogue) {
    case Epilogue::kStore: return store_tile<Epilogue::kStore>(tile, rows, c, stride);
    case Epilogue::kRelu: return store_tile<Epilogue::kRelu>(tile, rows, c, stride);
    case Epilogue::kAdd: return store_tile<Epilogue::kAdd>(tile, rows, c, stride);
  }
}

// Sums of products of a vector's worth of elements (64 bytes) of each operand, in f32 lanes.
inline F32x16 multiply_add(const float* x, const float* y, F32x16 sum) { return fma(load(x), load(y), sum); }
inline F32x16 multiply_add(const BFloat16* x, const BFloat16* y, F32x16 sum) {
#ifdef SWITCHYARD_LANES_AVX512
  return {_mm512_dpbf16_ps(sum.value, reinterpret_cast<__m512bh>(_mm512_loadu_si512(x)),
                           reinterpret_cast<__m512bh>(_mm512_loadu_si512(y)))};
#else
  return fma(load(x + kLanes), load(y + kLanes), fma(load(x), load(y), sum));
#endif
}

inline void put(float* to, float value) { *to = value; }
inline void put(BFloat16* to, float value) { *to = to_bfloat16(value); }

// One column for kRows rows. Each row of the matrix is read from memory once, one after the other: a second stream would
// slow the prefetcher. Two sums a row, so that one row alone does not wait for its own additions.
template <int kRows, class T>
void multiply_few(const Product<T>& product, const T* a, const T* matrix_row, T* c) {
  constexpr int64_t kStep = 64 / sizeof(T);
  const int64_t inner = product.inner;
  F32x16 sum[kRows][2];
  for (int row = 0; row < kRows; ++row) sum[row][0] = sum[row][1] = splat(0.0f);
  for (int64_t i = 0; i < inner; i += 2 * kStep)
    for (int part = 0; part < 2; ++part)
      for (int row = 0; row < kRows; ++row)
        sum[row][part] = multiply_add(a + row * inner + i + part * kStep, matrix_row + i + part * kStep, sum[row][part]);
  for (int row = 0; row < kRows; ++row) {
    float total = reduce_add(sum[row][0] + sum[row][1]);
    T* to = c + row * product.columns;
    if (product.epilogue == Epilogue::kRelu) total = std::max(0.0f, total);
    if (product.epilogue == Epilogue::kAdd) total += to_float(*to);
    put(to, total);
  }
}

template <class T>
bool are_few(int64_t rows, int64_t inner) {
  return rows <= kFewRows && rows * inner * static_cast<int64_t>(sizeof(T)) <= kFewBytes;
}

// pack_transposed of 64 rows that lie in memory one after the other. The transpose reads sixteen rows at once, too many
// streams for the prefetcher, so it asks for the next sixteen in the order in which they lie.
template <class T>
void pack_panel(const T* rows, int64_t inner, T* packed) {
  const int64_t words = inner / kPerWord<T>, group_bytes = 64 * words;
  const auto* from = reinterpret_cast<const char*>(rows);
  auto* to = reinterpret_cast<char*>(packed);
  for (int64_t row = 0; row < kPanel; row += 16)
    for (int64_t word = 0; word < words; word += 16) {
      const char* next = from + (row / 16 + 1) * group_bytes + word * 64;
      if (row + 16 < kPanel)
        for (int64_t line = 0; line < 16; ++line) __builtin_prefetch(next + 64 * line, 0, 2);
      transpose_16x16(from + 4 * (row * words + word), words, to + 4 * (word * kPanel + row), kPanel);
    }
}

// One panel of outputs for a few rows, without packing.
template <class T>
void multiply_few(const Product<T>& product, const Item& item, const T* matrix) {
  for (int64_t column = item.panel * kPanel; column < (item.panel + 1) * kPanel; ++column)
    for (int64_t row = 0; row < item.rows;) {
      const T* a = product.a + (item.first_row + row) * product.inner;
      const T* b = matrix + column * product.inner;
      T* c = product.c + (item.first_row + row) * product.columns + column;
      switch (item.rows - row) {
        case 1: multiply_few<1>(product, a, b, c); row += 1; break;
        case 2: multiply_few<2>(product, a, b, c); row += 2; break;
        case 3: multiply_few<3>(product, a, b, c); row += 3; break;
        default: multiply_few<4>(product, a, b, c); row += 4;
      }
    }
}

}  // namespace

template <class T>
void multiply(const Product<T>& product) {
  const int64_t inner = product.inner, columns = product.columns;
  std::vector<Item> items;
  int64_t start = 0;
  for (size_t group = 0; group < product.num_rows.size(); ++group) {
    const int64_t rows = product.num_rows[group];
    for (int64_t first = 0; first < rows; first += kMaxRows)
      for (int64_t panel = 0; panel < columns / kPanel; ++panel)
        items.push_back({static_cast<int64_t>(group), start + first, std::min(kMaxRows, rows - first), panel});
    start += rows;
  }
  const auto num_items = static_cast<int64_t>(items.size());
#pragma omp parallel if (num_items > 1 && start * inner * columns > kMinParallel)
  {
    Scratch<T> packed(inner * kPanel);
    Scratch<float> tile(kRowBlock * kPanel);
#pragma omp for schedule(dynamic, 1)
    for (int64_t index = 0; index < num_items; ++index) {
      const Item& item = items[static_cast<size_t>(index)];
      const T* matrix = product.b + item.group * inner * columns;
      if (product.transposed && are_few<T>(item.rows, inner)) {
        multiply_few(product, item, matrix);
        continue;
      }
      if (product.transposed)
        pack_panel(matrix + item.panel * kPanel * inner, inner, packed.data());
      else
        pack_rows(matrix + item.panel * kPanel, columns, inner, kPanel, packed.data());
      for (int64_t first = 0; first < item.rows; first += kRowBlock) {
        const int64_t rows = std::min(kRowBlock, item.rows - first), row = item.first_row + first;
        brgemm(rows, kPanel, inner, inner, kPanel, kPanel, false, product.a + row * inner, packed.data(), tile.data());
        store_tile(product.epilogue, tile.data(), rows, product.c + row * columns + item.panel * kPanel, columns);
      }
    }
    brgemm_release();
  }
}

template void multiply(const Product<float>&);
template void multiply(const Product<BFloat16>&);

}  // namespace switchyard::kernels
