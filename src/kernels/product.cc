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

constexpr int64_t kPanel = 64;             // columns of a packed panel: brgemm's widest
constexpr int64_t kRowBlock = 128;         // rows of a tile
constexpr int64_t kMaxRows = 1024;         // rows for which a panel is packed once
constexpr int64_t kNearBytes = 16384;      // rows of so many stay in the first-level cache beside a matrix
constexpr int64_t kMinParallel = 1 << 16;  // multiplications below which one thread is faster

// Rows first_row.. of the operand by matrix `matrix`, panel `panel` of the result.
struct Item {
  int64_t matrix, first_row, rows, panel;
};

// What a sum becomes in c.
template <class C>
float finish(Epilogue epilogue, float sum, const C* c) {
  switch (epilogue) {
    case Epilogue::kStore:
      return sum;
    case Epilogue::kRelu:
      return sum < 0.0f ? 0.0f : sum;
    case Epilogue::kAdd:
      return to_float(*c) + sum;
  }
  return sum;
}

inline void put(float* to, float value) { *to = value; }
inline void put(BFloat16* to, float value) { *to = to_bfloat16(value); }

template <Epilogue kEpilogue, class C>
void store_tile(const float* tile, int64_t rows, C* c, int64_t stride) {
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

// The first `columns` of a tile's 64.
template <class C>
void store_tile(Epilogue epilogue, const float* tile, int64_t rows, int64_t columns, C* c, int64_t stride) {
  if (columns < kPanel) {
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t i = 0; i < columns; ++i) {
        C* to = c + row * stride + i;
        put(to, finish(epilogue, tile[row * kPanel + i], to));
      }
    return;
  }
  switch (epilogue) {
    case Epilogue::kStore:
      return store_tile<Epilogue::kStore>(tile, rows, c, stride);
    case Epilogue::kRelu:
      return store_tile<Epilogue::kRelu>(tile, rows, c, stride);
    case Epilogue::kAdd:
      return store_tile<Epilogue::kAdd>(tile, rows, c, stride);
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

template <class T>
void prefetch_ahead(const T* from) {
  __builtin_prefetch(reinterpret_cast<const char*>(from) + kPrefetchBytes, 0, 3);
}

// kColumns columns, whose matrix rows lie one behind the other, for kRows rows. Two sums each, so that one row alone
// does not wait for its own additions; a sum's order does not depend on what is computed beside it.
template <int kRows, int kColumns, class T, class C>
void multiply_few(const Product<T, C>& product, const T* a, const T* matrix_row, C* c) {
  constexpr int64_t kStep = 64 / sizeof(T);
  const int64_t inner = product.inner;
  F32x16 sum[kRows][kColumns][2];
  for (int row = 0; row < kRows; ++row)
    for (int column = 0; column < kColumns; ++column) sum[row][column][0] = sum[row][column][1] = splat(0.0f);
  for (int64_t i = 0; i < inner; i += 2 * kStep)
    for (int part = 0; part < 2; ++part) {
      for (int column = 0; column < kColumns; ++column) prefetch_ahead(matrix_row + column * inner + i + part * kStep);
      for (int row = 0; row < kRows; ++row)
        for (int column = 0; column < kColumns; ++column)
          sum[row][column][part] = multiply_add(a + row * inner + i + part * kStep,
                                                matrix_row + column * inner + i + part * kStep, sum[row][column][part]);
    }
  for (int row = 0; row < kRows; ++row)
    for (int column = 0; column < kColumns; ++column) {
      C* to = c + row * product.columns + column;
      put(to, finish(product.epilogue, reduce_add(sum[row][column][0] + sum[row][column][1]), to));
    }
}

// pack_transposed of 64 rows that lie in memory one after the other. The transpose reads sixteen rows at once, too many
// streams for the prefetcher, so it asks for the next sixteen in the order in which they lie.
template <class T>
void transpose_panel(const T* rows, int64_t inner, T* packed) {
  const int64_t words = inner / kPerWord<T>, rows_bytes = 64 * words;
  const auto* from = reinterpret_cast<const char*>(rows);
  auto* to = reinterpret_cast<char*>(packed);
  for (int64_t row = 0; row < kPanel; row += 16)
    for (int64_t word = 0; word < words; word += 16) {
      const char* next = from + (row / 16 + 1) * rows_bytes + word * 64;
      if (row + 16 < kPanel)
        for (int64_t line = 0; line < 16; ++line) __builtin_prefetch(next + 64 * line, 0, 2);
      transpose_16x16(from + 4 * (row * words + word), words, to + 4 * (word * kPanel + row), kPanel);
    }
}

// Columns of panel `panel`: 64, or what is left.
int64_t panel_columns(int64_t columns, int64_t panel) { return std::min(kPanel, columns - panel * kPanel); }

// All rows of an item, up to four at a time, for kColumns columns from `column` on.
template <int kColumns, class T, class C>
void multiply_few_rows(const Product<T, C>& product, const Item& item, const T* matrix, int64_t column) {
  const T* b = matrix + column * product.inner;
  for (int64_t row = 0; row < item.rows; row += 4) {
    const T* a = product.a + (item.first_row + row) * product.inner;
    C* c = product.c + (item.first_row + row) * product.columns + column;
    switch (item.rows - row) {
      case 1:
        multiply_few<1, kColumns>(product, a, b, c);
        break;
      case 2:
        multiply_few<2, kColumns>(product, a, b, c);
        break;
      case 3:
        multiply_few<3, kColumns>(product, a, b, c);
        break;
      default:
        multiply_few<4, kColumns>(product, a, b, c);
    }
  }
}

// One panel of outputs for a few rows, without packing. Each row of the matrix is read from memory once, one after the
// other: a second stream would slow the prefetcher. Only where the rows do not stay in the first-level cache it pays to
// read them for two columns at once.
template <class T, class C>
void multiply_few(const Product<T, C>& product, const Item& item, const T* matrix, int64_t first, int64_t end) {
  const bool in_pairs = item.rows * product.inner * static_cast<int64_t>(sizeof(T)) > kNearBytes;
  int64_t column = first;
  for (; in_pairs && column + 2 <= end; column += 2) multiply_few_rows<2>(product, item, matrix, column);
  for (; column < end; ++column) multiply_few_rows<1>(product, item, matrix, column);
}

// A panel of the matrix as brgemm's second operand. A last panel of fewer rows is filled up with zeros in `packed`'s
// second half first.
template <class T, class C>
void pack_panel(const Product<T, C>& product, const T* matrix, int64_t panel, T* packed) {
  const int64_t inner = product.inner;
  if (!product.transposed) return pack_rows(matrix + panel * kPanel, product.columns, inner, kPanel, packed);
  const T* rows = matrix + panel * kPanel * inner;
  if (const int64_t count = panel_columns(product.columns, panel); count < kPanel) {
    T* filled = packed + inner * kPanel;
    std::copy_n(rows, count * inner, filled);
    std::fill_n(filled + count * inner, (kPanel - count) * inner, T{});
    rows = filled;
  }
  transpose_panel(rows, inner, packed);
}

template <class T, class C>
void multiply_packed(const Product<T, C>& product, const Item& item, const T* packed, float* tile) {
  const int64_t inner = product.inner, columns = product.columns;
  for (int64_t first = 0; first < item.rows; first += kRowBlock) {
    const int64_t rows = std::min(kRowBlock, item.rows - first), row = item.first_row + first;
    brgemm(rows, kPanel, inner, inner, kPanel, kPanel, false, product.a + row * inner, packed, tile);
    store_tile(product.epilogue, tile, rows, panel_columns(columns, item.panel),
               product.c + row * columns + item.panel * kPanel, columns);
  }
}

}  // namespace

template <class T, class C>
void multiply(const Product<T, C>& product) {
  const int64_t inner = product.inner, columns = product.columns, panels = (columns + kPanel - 1) / kPanel;
  std::vector<Item> items;
  int64_t start = 0;
  for (size_t matrix = 0; matrix < product.num_rows.size(); ++matrix) {
    const int64_t rows = product.num_rows[matrix];
    for (int64_t first = 0; first < rows; first += kMaxRows)
      for (int64_t panel = 0; panel < panels; ++panel)
        items.push_back({static_cast<int64_t>(matrix), start + first, std::min(kMaxRows, rows - first), panel});
    start += rows;
  }
  const auto num_items = static_cast<int64_t>(items.size());
  ThreadScratch<T> packed(inner * kPanel * (columns % kPanel == 0 ? 1 : 2));
  ThreadScratch<float> tile(kRowBlock * kPanel);
  RegionErrors errors;  // brgemm generates code at first
#pragma omp parallel if (num_items > 1 && start * inner * columns > kMinParallel)
  {
#pragma omp for schedule(dynamic, 1)
    for (int64_t index = 0; index < num_items; ++index)
      errors.run([&] {
        const Item& item = items[static_cast<size_t>(index)];
        const T* matrix = product.b + item.matrix * inner * columns;
        if (product.transposed && item.rows <= kFewRows && !product.packs_few)
          return multiply_few(product, item, matrix, item.panel * kPanel,
                              item.panel * kPanel + panel_columns(product.columns, item.panel));
        pack_panel(product, matrix, item.panel, packed.data());
        multiply_packed(product, item, packed.data(), tile.data());
      });
    brgemm_release();
  }
  errors.rethrow();
}

template <class T>
void multiply_columns(const Product<T>& product, int64_t begin, int64_t end) {
  const Item item{.matrix = 0, .first_row = 0, .rows = product.num_rows[0], .panel = 0};
  multiply_few(product, item, product.b, begin, end);
}

template void multiply_columns(const Product<float>&, int64_t, int64_t);
template void multiply_columns(const Product<BFloat16>&, int64_t, int64_t);

namespace {

// from [rows, 64] with a row stride to [64, padded_rows], zeros beyond `rows`; padded_rows a multiple of 16.
// `words` has room for 32 * padded_rows words, `tail` for 16 rows of 64.
template <class T>
void transpose_columns(const T* from, int64_t stride, int64_t rows, int64_t padded_rows, T* words, T* tail, T* to) {
  constexpr int64_t kWords = kPanel / kPerWord<T>;
  T* transposed = sizeof(T) == sizeof(float) ? to : words;
  const int64_t whole = rows / 16 * 16;
  transpose_words(from, stride / kPerWord<T>, whole, kWords, transposed, padded_rows);
  if (whole < rows) {
    std::fill_n(tail, 16 * kPanel, T{});
    for (int64_t row = whole; row < rows; ++row)
      std::copy_n(from + row * stride, kPanel, tail + (row - whole) * kPanel);
    transpose_words(tail, kWords, 16, kWords, transposed + whole * kPerWord<T>, padded_rows);
  }
  if constexpr (sizeof(T) < sizeof(float))
    for (int64_t pair = 0; pair < kWords; ++pair)
      deinterleave(words + pair * 2 * padded_rows, to + 2 * pair * padded_rows, to + (2 * pair + 1) * padded_rows,
                   padded_rows);
}

// Up to kMaxRows of a matrix's rows.
struct Chunk {
  int64_t first_row, rows;
  int64_t first_padded;  // its place in ColumnWork's packed rows
};

// What multiply_columns does: items of chunks first_row .. first_row + rows for each panel of a matrix's result.
struct ColumnWork {
  std::vector<Chunk> chunks;
  std::vector<Item> items;
  int64_t rows = 0, padded = 0;

  ColumnWork(std::span<const int64_t> num_rows, int64_t panels) {
    for (size_t matrix = 0; matrix < num_rows.size(); ++matrix) {
      const int64_t count = num_rows[matrix];
      const auto first_chunk = static_cast<int64_t>(chunks.size());
      for (int64_t first = 0; first < count; first += kMaxRows) {
        chunks.push_back({rows + first, std::min(kMaxRows, count - first), padded});
        padded += round_up(chunks.back().rows, 16);
      }
      for (int64_t panel = 0; panel < panels; ++panel)
        items.push_back(
            {static_cast<int64_t>(matrix), first_chunk, static_cast<int64_t>(chunks.size()) - first_chunk, panel});
      rows += count;
    }
  }
};

// Rows [rows, 64] with a row stride as brgemm's second operand: neighbouring rows in pairs, zeros up to a multiple of
// 16. `tail` has room for 16 rows of 64.
template <class T>
void pack_padded(const T* from, int64_t stride, int64_t rows, T* tail, T* to) {
  const int64_t whole = rows / 16 * 16;
  pack_rows(from, stride, whole, kPanel, to);
  if (whole == rows) return;
  std::fill_n(tail, 16 * kPanel, T{});
  for (int64_t row = whole; row < rows; ++row) std::copy_n(from + row * stride, kPanel, tail + (row - whole) * kPanel);
  pack_rows(tail, kPanel, 16, kPanel, to + whole * kPanel);
}

}  // namespace

template <class T>
void multiply_columns(const ColumnProduct<T>& product) {
  const int64_t out = product.out, in = product.in, slices = in / kPanel;
  const ColumnWork work(product.num_rows, out / kPanel);
  const auto num_chunks = static_cast<int64_t>(work.chunks.size()), num_items = static_cast<int64_t>(work.items.size());
  // `rows` as the second operand: [in / 64][padded rows of all matrices][64].
  Scratch<T> packed(std::max<int64_t>(work.padded, 1) * in);
  const auto packed_rows = [&](const Chunk& chunk, int64_t slice) {
    return packed.data() + (slice * work.padded + chunk.first_padded) * kPanel;
  };
  ThreadScratch<T> words(kPanel * kMaxRows), columns(kPanel * kMaxRows), tail(16 * kPanel);
  ThreadScratch<float> sums(kPanel * in);
  RegionErrors errors;
#pragma omp parallel if (work.rows * in * out > kMinParallel)
  {
#pragma omp for schedule(dynamic, 1) collapse(2)
    for (int64_t index = 0; index < num_chunks; ++index)
      for (int64_t slice = 0; slice < slices; ++slice) {
        const Chunk& chunk = work.chunks[static_cast<size_t>(index)];
        pack_padded(product.rows + chunk.first_row * in + slice * kPanel, in, chunk.rows, tail.data(),
                    packed_rows(chunk, slice));
      }
#pragma omp for schedule(dynamic, 1)
    for (int64_t index = 0; index < num_items; ++index) {
      const Item& item = work.items[static_cast<size_t>(index)];
      T* result = product.c + (item.matrix * out + item.panel * kPanel) * in;
      if (item.rows == 0) std::fill_n(result, kPanel * in, T{});
      for (int64_t number = 0; number < item.rows; ++number) {
        const Chunk& chunk = work.chunks[static_cast<size_t>(item.first_row + number)];
        const int64_t rows = round_up(chunk.rows, 16);
        transpose_columns(product.grad + chunk.first_row * out + item.panel * kPanel, out, chunk.rows, rows,
                          words.data(), tail.data(), columns.data());
        errors.run([&] {
          for (int64_t slice = 0; slice < slices; ++slice)
            brgemm(kPanel, kPanel, rows, rows, kPanel, in, number > 0, columns.data(), packed_rows(chunk, slice),
                   sums.data() + slice * kPanel);
        });
      }
      const float* from = sums.data();
      if (item.rows > 0)
        for (int64_t i = 0; i < kPanel * in; i += 2 * kLanes)
          store_wide(result + i, load(from + i), load(from + i + kLanes));
    }
    brgemm_release();
  }
  errors.rethrow();
}

template void multiply(const Product<float>&);
template void multiply(const Product<BFloat16>&);
template void multiply(const Product<BFloat16, float>&);
template void multiply_columns(const ColumnProduct<float>&);
template void multiply_columns(const ColumnProduct<BFloat16>&);

}  // namespace switchyard::kernels
