// Exponentials, logarithms, GELU and its derivative on vectors.
//
// The exponentials split an argument y = n·ln 2 + r with |r| ≤ ½ ln 2, take a polynomial of r and multiply it by 2ⁿ.
// Adding kRound = 1.5·2²³ + 127 rounds to an integer n and leaves n + 127 in the low bits of the sum, which is the
// exponent field of 2ⁿ: no conversion to integers is needed. Polynomials are least-squares fits on Chebyshev nodes,
// weighted for the relative error of the result.
#pragma once

#include "cpu/simd/simd.h"

namespace siglip2::SIGLIP2_ISA {

inline constexpr float kRound = 12583039.0f;
inline constexpr float kLog2E = 1.442695f;
inline constexpr float kLn2High = 0.693145751953125f;  // 15 bits: n·kLn2High is exact
inline constexpr float kLn2Low = 1.4286068e-06f;

// eʳ for |r| ≤ ½ ln 2.
SIGLIP2_INLINE Vec exp_fraction(Vec r) {
  Vec q = multiply_add(broadcast(0.0013750899f), r, broadcast(0.008369058f));
  q = multiply_add(q, r, broadcast(0.041669555f));
  q = multiply_add(q, r, broadcast(0.16666517f));
  q = multiply_add(q, r, broadcast(0.49999988f));
  return multiply_add(r * r, q, r) + broadcast(1.0f);
}

// eˣ to about one unit in the last place; subnormal results are gradual, −∞ gives 0, NaN stays NaN.
SIGLIP2_INLINE Vec exp(Vec x) {
  const Vec bounded = min(broadcast(90.0f), max(broadcast(-110.0f), x));
  const Vec rounded = multiply_add(bounded, broadcast(kLog2E), broadcast(kRound));
  const Vec n = rounded - broadcast(kRound);
  const Vec r = multiply_add(n, broadcast(-kLn2Low), multiply_add(n, broadcast(-kLn2High), bounded));
  // 2ⁿ in two steps: the result may be subnormal, or close to overflow, where 2ⁿ is neither.
  const Vec half = multiply_add(n, broadcast(0.5f), broadcast(kRound));
  const Vec rest = n - (half - broadcast(kRound)) + broadcast(kRound);
  return exp_fraction(r) * power_of_two_bits(half) * power_of_two_bits(rest);
}

// The constants of 2ˣ and the polynomial of its fraction; x is from −127, where 2ˣ becomes 0, to 127.
struct Exp2 {
  Vec round = broadcast(kRound);
  Vec sixth = broadcast(0.00015370635f), fifth = broadcast(0.001339998f), fourth = broadcast(0.0096183745f),
      third = broadcast(0.055503286f), second = broadcast(0.24022648f), first = broadcast(0.6931472f),
      one = broadcast(1.0f);

  // 2ˣ = fraction · power, to about one unit in the last place.
  struct Parts {
    Vec fraction, power;
  };
  SIGLIP2_INLINE Parts operator()(Vec x) const {
    const Vec rounded = x + round;
    const Vec f = x - (rounded - round);
    Vec g = multiply_add(sixth, f, fifth);
    g = multiply_add(g, f, fourth);
    g = multiply_add(g, f, third);
    g = multiply_add(g, f, second);
    g = multiply_add(g, f, first);
    return {multiply_add(g, f, one), power_of_two_bits(rounded)};
  }
};

// 2ˣ for x ≤ 0 to about one unit in the last place; results below 2⁻¹²⁶ become 0, NaN stays NaN. The exponential of
// softmax, whose largest weight is 1.
SIGLIP2_INLINE Vec exp2_nonpositive(Vec x) {
  const auto [fraction, power] = Exp2()(max(broadcast(-127.0f), x));
  return fraction * power;
}

// log(1 + u) for 0 ≤ u ≤ 1 to about two units in the last place, however small u is: 2 artanh(u/(2 + u)), whose series
// has no terms to cancel.
SIGLIP2_INLINE Vec log1p_fraction(Vec u) {
  const Vec z = u / (u + broadcast(2.0f));
  const Vec square = z * z;
  Vec p = multiply_add(broadcast(0.14007562f), square, broadcast(0.14000423f));
  p = multiply_add(p, square, broadcast(0.2001081f));
  p = multiply_add(p, square, broadcast(0.33333206f));
  return (z + z) * multiply_add(p, square, broadcast(1.0f));
}

// 0.5 z (1 + tanh(u)) with u = √(2/π)(z + 0.044715 z³), as z/(1 + e^−2u) for z ≥ 0 and z·e^2u/(1 + e^2u) below, where
// the first form would subtract nearly equal numbers. There e^2u multiplies the error of 2u by |2u| (up to 100), so
// 2u = z·(a + b z²) is carried as a sum of two numbers into the range reduction.
SIGLIP2_INLINE Vec gelu_tanh(Vec z) {
  // a has few enough bits that (a + b z²) − a is exact.
  const Vec a = broadcast(1.595768928527832f), a_low = broadcast(1.930779e-07f);
  const Vec b = broadcast(0.071354814f), b_low = broadcast(2.3988325e-09f);
  const Vec least = broadcast(-11.6f);                   // the result has long been −0 there
  const Vec magnitude = max(least, min(z, zero() - z));  // −|z|
  const Vec square = magnitude * magnitude;
  const Vec square_low = fused_multiply_add(magnitude, magnitude, zero() - square);
  const Vec sum = fused_multiply_add(b, square, a);
  Vec sum_low = fused_multiply_add(b, square, a - sum);
  sum_low = sum_low + multiply_add(b_low, square, a_low);
  sum_low = multiply_add(b, square_low, sum_low);

  const Vec rounded = multiply_add(magnitude * sum, broadcast(kLog2E), broadcast(kRound));
  const Vec n = rounded - broadcast(kRound);
  const Vec r_high = fused_multiply_add(magnitude, sum, n * broadcast(-kLn2High));
  const Vec r = r_high + multiply_add(n, broadcast(-kLn2Low), magnitude * sum_low);
  // n is from −188 to 0, and the product with z may be normal where 2ⁿ is not: 2ⁿ⁺⁶⁴ first, then 2⁻⁶⁴.
  const Vec raised = exp_fraction(r) * power_of_two_bits(n + broadcast(kRound + 64.0f));
  const Vec decay = raised * broadcast(0x1p-64f);  // e^−|2u|
  const Vec numerator = select_negative(z, magnitude * raised * broadcast(0x1p-64f), z);
  return numerator / (broadcast(1.0f) + decay);
}

// gelu_tanh to some 2e-7 of the largest result, in half the operations: z/(1 + 2^y) with y = −2u·log₂e as it comes.
// What has long been −0 is z/2^123 instead, and stays finite.
struct ShortGelu {
  Vec least = broadcast(-9.9f);  // 2^y is 2^123 there
  Vec cubic = broadcast(-0.10294324f), linear = broadcast(-2.3022082f), lowest = broadcast(-127.0f);
  Exp2 exp2;

  SIGLIP2_INLINE Vec operator()(Vec z) const {
    const Vec bounded = max(least, z);
    const Vec y = bounded * multiply_add(cubic, bounded * bounded, linear);
    const auto [fraction, power] = exp2(max(lowest, y));
    return bounded * reciprocal(multiply_add(fraction, power, exp2.one));
  }
  // The same with constants that stay in registers, for code in which every load counts.
  SIGLIP2_INLINE ShortGelu kept() const {
    ShortGelu gelu = *this;
    keep_in_register(gelu.least);
    keep_in_register(gelu.cubic);
    keep_in_register(gelu.linear);
    keep_in_register(gelu.lowest);
    keep_in_register(gelu.exp2.round);
    keep_in_register(gelu.exp2.sixth);
    keep_in_register(gelu.exp2.fifth);
    keep_in_register(gelu.exp2.fourth);
    keep_in_register(gelu.exp2.third);
    keep_in_register(gelu.exp2.second);
    keep_in_register(gelu.exp2.first);
    keep_in_register(gelu.exp2.one);
    return gelu;
  }
};
SIGLIP2_INLINE Vec gelu_tanh_short(Vec z) {
  return ShortGelu()(z);
}

// The derivative of gelu_tanh and of gelu_tanh_short to some 1e-7 in absolute terms; 0 at −∞, 1 at +∞. With m = |z|, d
// = e^−2u(m), s = 1/(1 + d) and k = m·2u′(m)·s it is s + k·ds for z ≥ 0 and ds − k·ds below, which neither overflows
// nor subtracts nearly equal numbers but at its zero near −0.75.
SIGLIP2_INLINE Vec gelu_tanh_derivative(Vec z) {
  // d is 0 from about 10 on.
  const Vec m = min(broadcast(11.6f), max(z, zero() - z));
  const Vec square = m * m;
  // 2u·log₂e and 2u′, with 2u = √(8/π)(m + 0.044715 m³).
  const Vec exponent = m * multiply_add(broadcast(0.10294324f), square, broadcast(2.3022082f));
  const Vec slope = multiply_add(broadcast(0.21406445f), square, broadcast(1.5957691f));
  const Vec d = exp2_nonpositive(zero() - exponent);
  const Vec s = reciprocal(broadcast(1.0f) + d);
  const Vec k = m * slope * s;
  const Vec ds = d * s;
  return multiply_add(select_negative(z, zero() - k, k), ds, select_negative(z, ds, s));
}

}  // namespace siglip2::SIGLIP2_ISA
