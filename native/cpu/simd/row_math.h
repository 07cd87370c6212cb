// Rows of any length, and arithmetic on those of float32.
#pragma once

#include "cpu/simd/simd.h"

namespace siglip2::SIGLIP2_ISA {

// The first `lanes` values; zero beyond.
template <typename Value>
SIGLIP2_INLINE Vec load_up_to(const Value* source, int lanes) {
  return lanes == kLanes ? load(source) : load_first(source, lanes);
}
template <typename Value>
SIGLIP2_INLINE void store_up_to(Value* target, Vec v, int lanes) {
  if (lanes == kLanes)
    store(target, v);
  else
    store_first(target, v, lanes);
}

// Calls body(i, lanes) for the vectors of a row: kLanes lanes from i on, fewer in the last one.
template <typename Body>
SIGLIP2_INLINE void for_each_vector(std::int64_t width, Body body) {
  std::int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes)
    body(i, kLanes);
  if (i < width) body(i, static_cast<int>(width - i));
}

// Σ a[i]·b[i], of float32 or BFloat16
template <typename A, typename B>
float dot(const A* a, const B* b, std::int64_t count) {
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
