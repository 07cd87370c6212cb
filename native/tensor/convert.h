// Exact widening of stored element types to float32, and rounding back. Data has no alignment.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tensor/dtype.h"

namespace siglip2 {

inline float bits_to_float(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

inline std::uint32_t float_to_bits(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

inline float bfloat16_to_float(std::uint16_t half) {
  return bits_to_float(static_cast<std::uint32_t>(half) << 16);
}

// Rounds to nearest, ties to even; NaN stays NaN.
inline std::uint16_t float_to_bfloat16(float value) {
  const std::uint32_t bits = float_to_bits(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
// The nearest bfloat16 number, ties to even.
inline float round_to_bfloat16(float value) {
  return bfloat16_to_float(float_to_bfloat16(value));
}

inline float float16_to_float(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16;
  const std::uint32_t exponent = (half >> 10) & 0x1fu;
  const std::uint32_t fraction = half & 0x3ffu;
  if (exponent == 0x1fu) return bits_to_float(sign | 0x7f800000u | (fraction << 13));
  if (exponent != 0) return bits_to_float(sign | ((exponent + 112u) << 23) | (fraction << 13));
  // Subnormal: fraction · 2⁻²⁴, exact in float32.
  const float magnitude = static_cast<float>(fraction) * 5.9604644775390625e-8f;
  return sign != 0 ? -magnitude : magnitude;
}

// Rounds to nearest, ties to even; values beyond 65504 become infinite; NaN stays NaN.
inline std::uint16_t float_to_float16(float value) {
  const std::uint32_t bits = float_to_bits(value);
  const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000u);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);
  if (magnitude >= 0x38800000u) {
    const std::uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
    return static_cast<std::uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
  }
  // Subnormal: next to ½ the float32 unit in the last place is the float16 subnormal's, so the addition itself rounds.
  return static_cast<std::uint16_t>(sign | (float_to_bits(bits_to_float(magnitude) + 0.5f) - 0x3f000000u));
}

// `dtype` must be float32, float16 or bfloat16.
inline void widen_to_float(DType dtype, const void* source, float* target, std::size_t count) {
  if (dtype == DType::kFloat32) {
    if (count != 0) std::memcpy(target, source, count * sizeof(float));
    return;
  }
  const auto* bytes = static_cast<const unsigned char*>(source);
  for (std::size_t i = 0; i < count; ++i) {
    std::uint16_t half;
    std::memcpy(&half, bytes + 2 * i, sizeof(half));
    target[i] = dtype == DType::kBFloat16 ? bfloat16_to_float(half) : float16_to_float(half);
  }
}

// The other way; rounds to nearest, ties to even.
inline void narrow_from_float(DType dtype, const float* source, void* target, std::size_t count) {
  if (dtype == DType::kFloat32) {
    if (count != 0) std::memcpy(target, source, count * sizeof(float));
    return;
  }
  auto* bytes = static_cast<unsigned char*>(target);
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint16_t half = dtype == DType::kBFloat16 ? float_to_bfloat16(source[i]) : float_to_float16(source[i]);
    std::memcpy(bytes + 2 * i, &half, sizeof(half));
  }
}

}  // namespace siglip2
