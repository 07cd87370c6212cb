// Arithmetic on rows of float32 of any length.
#pragma once

#include "cpu/simd/simd.h"

namespace siglip2::SIGLIP2_ISA {

// Σ a[i]·b[i]
inline float dot(const float* a, const float* b, std::int64_t count) {
  Vec sums[4] = {zero(), zero(), zero(), zero()};
  std::int64_t i = 0;
  for (; i + 4 * kLanes <= count; i += 4 * kLanes) {
    SIGLIP2_UNROLL for (int v = 0; v < 4; ++v) {
      sums[v] = multiply_add(load(a + i + v * kLanes), load(b + i + v * kLanes), sums[v]);
    }
  }
  for (; i < count; i += kLanes) {
    const int rest = static_cast<int>(count - i < kLanes ? count - i : kLanes);
    sums[0] = multiply_add(load_first(a + i, rest), load_first(b + i, rest), sums[0]);
  }
  return reduce_add((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// target[i] += factor·source[i]
inline void add_scaled(float factor, const float* source, std::int64_t count, float* target) {
  const Vec scale = broadcast(factor);
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    store(target + i, multiply_add(scale, load(source + i), load(target + i)));
  const int rest = static_cast<int>(count - i);
  if (rest > 0) {
    store_first(target + i, multiply_add(scale, load_first(source + i, rest), load_first(target + i, rest)), rest);
  }
}

}  // namespace siglip2::SIGLIP2_ISA
