#include "kernels/brgemm.h"

#include <ATen/native/CPUBlas.h>

#include <exception>

namespace switchyard::kernels {
namespace {

// Two rows times a 2 x 16 panel of small integers, exact in either type.
template <class T, class Convert>
bool probe(Convert convert) {
  T a[2 * 2], b[2 * 16];
  float c[2 * 16] = {};
  for (int row = 0; row < 2; ++row)
    for (int inner = 0; inner < 2; ++inner) a[2 * row + inner] = convert(static_cast<float>(1 + row + 2 * inner));
  const bool interleaved = sizeof(T) == 2;
  for (int inner = 0; inner < 2; ++inner)
    for (int column = 0; column < 16; ++column)
      b[interleaved ? 2 * column + inner : 16 * inner + column] = convert(static_cast<float>(column - 3 * inner));
  try {
    brgemm(2, 16, 2, 2, 16, 16, false, a, b, c);
    brgemm_release();
  } catch (const std::exception&) {
    return false;
  }
  for (int row = 0; row < 2; ++row)
    for (int column = 0; column < 16; ++column) {
      const auto expected = static_cast<float>((1 + row) * column + (3 + row) * (column - 3));
      if (c[16 * row + column] != expected) return false;
    }
  return true;
}

}  // namespace

bool brgemm_available_bf16() {
  static const bool available = probe<BFloat16>([](float value) { return to_bfloat16(value); });
  return available;
}

bool brgemm_available_f32() {
  static const bool available = probe<float>([](float value) { return value; });
  return available;
}

void brgemm(int64_t m, int64_t n, int64_t k, int64_t lda, int64_t ldb, int64_t ldc, bool add, const BFloat16* a,
            const BFloat16* b, float* c) {
  at::native::cpublas::brgemm(m, n, k, lda, ldb, ldc, add, reinterpret_cast<const at::BFloat16*>(a),
                              reinterpret_cast<const at::BFloat16*>(b), c, /*is_vnni=*/true);
}

void brgemm(int64_t m, int64_t n, int64_t k, int64_t lda, int64_t ldb, int64_t ldc, bool add, const float* a,
            const float* b, float* c) {
  at::native::cpublas::brgemm(m, n, k, lda, ldb, ldc, add, a, b, c, /*is_vnni=*/false);
}

void brgemm_release() { at::native::cpublas::brgemm_release(); }

}  // namespace switchyard::kernels
