// Numbers of about 48 bits as unevaluated sums of two float32, on vectors: for sums that float32 is too short for.
// Their arithmetic needs the compiler to leave the order of additions alone, which all builds ask for.
#pragma once

#include "cpu/simd/simd.h"

namespace siglip2::SIGLIP2_ISA {

struct VecPair {
  Vec high;
  Vec low;
};

// a + b without error.
SIGLIP2_INLINE VecPair add_exactly(Vec a, Vec b) {
  const Vec sum = a + b;
  const Vec b_part = sum - a;
  return {sum, (a - (sum - b_part)) + (b - b_part)};
}

// The same for |a| ≥ |b|, or a = 0.
SIGLIP2_INLINE VecPair add_smaller_exactly(Vec a, Vec b) {
  const Vec sum = a + b;
  return {sum, b - (sum - a)};
}

// sum + x, where errors gather in `low`: for long sums, whose value is high + low.
SIGLIP2_INLINE VecPair add(VecPair sum, Vec x) {
  const VecPair exact = add_exactly(sum.high, x);
  return {exact.high, sum.low + exact.low};
}

SIGLIP2_INLINE VecPair multiply(VecPair a, VecPair b) {
  const Vec product = a.high * b.high;
  const Vec error = fused_multiply_add(a.high, b.high, zero() - product);
  return {product, multiply_add(a.low, b.high, multiply_add(a.high, b.low, error))};
}

// a + b with |low| at most half a unit in the last place of `high`.
SIGLIP2_INLINE VecPair add(VecPair a, VecPair b) {
  const VecPair sum = add_exactly(a.high, b.high);
  return add_smaller_exactly(sum.high, sum.low + (a.low + b.low));
}

// Σ (high + low) over all lanes, in order.
inline double sum_of_lanes(VecPair pair) {
  float high[kLanes], low[kLanes];
  store(high, pair.high);
  store(low, pair.low);
  double sum = 0;
  for (int i = 0; i < kLanes; ++i)
    sum += static_cast<double>(high[i]) + low[i];
  return sum;
}

}  // namespace siglip2::SIGLIP2_ISA
