// kernels/lanes.h in plain loops, for any processor.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/bfloat16.h"

namespace switchyard::kernels {

struct F32x16 {
  float value[kLanes];
};

template <class Function>
inline F32x16 each_lane(Function function) {
  F32x16 result;
  for (int64_t lane = 0; lane < kLanes; ++lane) result.value[lane] = function(lane);
  return result;
}
inline F32x16 splat(float x) {
  return each_lane([&](int64_t) { return x; });
}
template <class T>
inline F32x16 load(const T* from) {
  return each_lane([&](int64_t lane) { return to_float(from[lane]); });
}
inline void store(float* to, F32x16 x) { std::copy_n(x.value, kLanes, to); }
inline void store(BFloat16* to, F32x16 x) {
  for (int64_t lane = 0; lane < kLanes; ++lane) to[lane] = to_bfloat16(x.value[lane]);
}

inline F32x16 operator+(F32x16 a, F32x16 b) {
  return each_lane([&](int64_t lane) { return a.value[lane] + b.value[lane]; });
}
inline F32x16 operator-(F32x16 a, F32x16 b) {
  return each_lane([&](int64_t lane) { return a.value[lane] - b.value[lane]; });
}
inline F32x16 operator*(F32x16 a, F32x16 b) {
  return each_lane([&](int64_t lane) { return a.value[lane] * b.value[lane]; });
}
inline F32x16 operator/(F32x16 a, F32x16 b) {
  return each_lane([&](int64_t lane) { return a.value[lane] / b.value[lane]; });
}
inline F32x16 where_positive(F32x16 test, F32x16 x) {
  return each_lane([&](int64_t lane) { return test.value[lane] > 0.0f ? x.value[lane] : 0.0f; });
}
inline F32x16 where_at_least(F32x16 test, F32x16 bound, F32x16 x) {
  return each_lane([&](int64_t lane) { return test.value[lane] >= bound.value[lane] ? x.value[lane] : 0.0f; });
}
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  return each_lane([&](int64_t lane) { return a.value[lane] * b.value[lane] + c.value[lane]; });
}
inline F32x16 max(F32x16 a, F32x16 b) {
  return each_lane([&](int64_t lane) { return a.value[lane] > b.value[lane] ? a.value[lane] : b.value[lane]; });
}
inline F32x16 round(F32x16 x) {
  return each_lane([&](int64_t lane) { return std::nearbyint(x.value[lane]); });
}
inline F32x16 scale_by_power(F32x16 x, F32x16 exponent) {
  return each_lane([&](int64_t lane) {
    return std::ldexp(x.value[lane], static_cast<int>(std::clamp(exponent.value[lane], -1e4f, 1e4f)));
  });
}
inline float reduce_max(F32x16 x) { return *std::max_element(x.value, x.value + kLanes); }
inline float reduce_add(F32x16 x) {
  for (int64_t half = kLanes / 2; half > 0; half /= 2)
    for (int64_t lane = 0; lane < half; ++lane) x.value[lane] += x.value[lane + half];
  return x.value[0];
}
inline void store_wide(BFloat16* to, F32x16 a, F32x16 b) {
  store(to, a);
  store(to + kLanes, b);
}
inline F32x16 shift_up(F32x16 x, F32x16 from) {
  return each_lane([&](int64_t lane) { return lane == 0 ? from.value[kLanes - 1] : x.value[lane - 1]; });
}
inline void store_pair(BFloat16* to0, BFloat16* to1, F32x16 a, F32x16 b) {
  store(to0, a);
  store(to1, b);
}
inline void store_pair_interleaved(BFloat16* to0, BFloat16* to1, BFloat16* interleaved, F32x16 a, F32x16 b) {
  store_pair(to0, to1, a, b);
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    interleaved[2 * lane] = to0[lane];
    interleaved[2 * lane + 1] = to1[lane];
  }
}

}  // namespace switchyard::kernels
