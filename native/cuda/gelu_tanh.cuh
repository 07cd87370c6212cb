// GELU in its tanh form and its derivative, for kernels: exact to a few units in the last place of float32, or by the
// special function unit where the result becomes a bfloat16.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "cuda/language.h"
#include "cuda/prim/math.h"

namespace siglip2::cuda {

// e^−|2u| · 2^64 for magnitude = −|z|, which is at least −11.6, with u = √(2/π)(z + 0.044715 z³). The error of 2u (up
// to 130) would come out multiplied by 2u, so 2u = z·(a + b z²) is carried as a sum of two numbers.
__device__ __forceinline__ float raised_gelu_decay(float magnitude) {
  constexpr float kLog2E = 1.44269504f, kRound = 12582912.0f;  // 1.5 · 2^23: adding it rounds to whole numbers
  // a has few enough bits that (a + b z²) − a is exact; both have a remainder.
  constexpr float kA = 1.595768928527832f, kALow = 1.930779e-07f;
  constexpr float kB = 0.071354814f, kBLow = 2.3988325e-09f;
  // ln 2 in two parts, the first with so few bits that a whole number up to 255 times it is exact.
  constexpr float kLn2High = 0.693145751953125f, kLn2Low = 1.42860677e-06f;
  const float square = magnitude * magnitude;
  const float square_low = fmaf(magnitude, magnitude, -square);
  const float sum = fmaf(kB, square, kA);
  float sum_low = fmaf(kB, square, kA - sum);
  sum_low += fmaf(kBLow, square, kALow);
  sum_low = fmaf(kB, square_low, sum_low);

  // 2u = n ln 2 + r, |r| ≤ ½ ln 2, and the exponential of r by its Taylor series, whose rest is below 6e-9.
  const float rounded = fmaf(magnitude * sum, kLog2E, kRound);
  const float n = rounded - kRound;
  const float r = fmaf(n, -kLn2Low, fmaf(magnitude, sum, n * -kLn2High)) + magnitude * sum_low;
  float power = 1.0f / 5040;
  power = fmaf(power, r, 1.0f / 720);
  power = fmaf(power, r, 1.0f / 120);
  power = fmaf(power, r, 1.0f / 24);
  power = fmaf(power, r, 1.0f / 6);
  power = fmaf(power, r, 0.5f);
  power = fmaf(power, r, 1.0f);
  power = fmaf(power, r, 1.0f);
  // 2^(n + 64): n is from −188 to 0, so this is a normal number.
  const std::uint32_t bits = static_cast<std::uint32_t>(static_cast<std::int32_t>(n) + 64 + 127) << 23;
  float scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return power * scale;
}

// ½ z (1 + tanh u) as z/(1 + e^−2u) for z ≥ 0 and z e^2u/(1 + e^2u) below, where 1 + tanh u would subtract nearly equal
// numbers. With kFast the relative error is about 2^-17.
template <bool kFast>
__device__ __forceinline__ float gelu_tanh(float z) {
  if constexpr (kFast) {
    // Below −11.6 the result is −0, and −∞ · 0 would be no number. A NaN stays.
    const float bounded = z < -12.0f ? -12.0f : z;
    const float exponent = bounded * fmaf(-0.10294324f, bounded * bounded, -2.3022082f);  // −2u log₂ e
    return bounded * reciprocal_fast(1.0f + exp2_fast(exponent));
  } else {
    const float magnitude = fmaxf(-11.6f, fminf(z, -z));
    const float raised = raised_gelu_decay(magnitude);
    // For very negative z the product with z may be normal where e^−|2u| is not.
    const float numerator = z < 0 ? magnitude * raised * 0x1p-64f : z;
    return numerator / (1.0f + raised * 0x1p-64f);
  }
}

// The derivative, ½(1 + tanh u) + ½ z (1 − tanh² u) u′. With m = |z|, d = e^−2u(m), s = 1/(1 + d) and k = m·2u′(m)·s it
// is s + k·ds for z ≥ 0 and ds − k·ds below, which neither overflows nor subtracts nearly equal numbers but at its
// zero.
template <bool kFast>
__device__ __forceinline__ float gelu_tanh_derivative(float z) {
  // d is 0 from about 10 on. A NaN stays.
  const float m = z < -11.6f || z > 11.6f ? 11.6f : fabsf(z);
  const float square = m * m;
  const float exponent = -m * fmaf(0.10294324f, square, 2.3022082f);
  const float slope = fmaf(0.21406445f, square, 1.5957691f);
  const float d = kFast ? exp2_fast(exponent) : exp2f(exponent);
  const float s = kFast ? reciprocal_fast(1.0f + d) : 1.0f / (1.0f + d);
  const float ds = d * s;
  const float change = m * slope * s * ds;
  return z < 0 ? ds - change : s + change;
}

}  // namespace siglip2::cuda
