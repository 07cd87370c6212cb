// bfloat16: the upper half of a float32. Rounding is to nearest, ties to even; widening is exact.
#pragma once

#include <cstdint>
#include <cstring>

#include "cuda/language.h"

namespace siglip2::cuda {

struct bfloat16 {
  std::uint16_t bits;
};

__host__ __device__ __forceinline__ float to_float(float value) {
  return value;
}

__host__ __device__ __forceinline__ float to_float(bfloat16 value) {
  const std::uint32_t bits = static_cast<std::uint32_t>(value.bits) << 16;
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
#endif
}

// Two values in one register, the first in the lower half: the operand format of matrix instructions.
__host__ __device__ __forceinline__ std::uint32_t pack_bfloat16(float first, float second) {
#if defined(__CUDA_ARCH__)
  std::uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(second), "f"(first));
  return packed;
#else
  const auto round = [](float value) -> std::uint32_t {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7FFFFFFF) > 0x7F800000) return 0x7FFF;  // what the hardware makes of any NaN
    return (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
  };
  return round(first) | round(second) << 16;
#endif
}

__host__ __device__ __forceinline__ bfloat16 unpack_first(std::uint32_t packed) {
  return {static_cast<std::uint16_t>(packed & 0xFFFF)};
}
__host__ __device__ __forceinline__ bfloat16 unpack_second(std::uint32_t packed) {
  return {static_cast<std::uint16_t>(packed >> 16)};
}

// float32 to an activation type: from_float<float> is the identity.
template <typename T>
__host__ __device__ __forceinline__ T from_float(float value);
template <>
__host__ __device__ __forceinline__ float from_float<float>(float value) {
  return value;
}
template <>
__host__ __device__ __forceinline__ bfloat16 from_float<bfloat16>(float value) {
  return unpack_first(pack_bfloat16(value, 0.0f));
}

}  // namespace siglip2::cuda
