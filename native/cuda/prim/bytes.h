// Arithmetic on the four bytes of a word; byte 0 is the lowest.
#pragma once

#include <cstdint>

#include "cuda/prim/site.h"

namespace siglip2::cuda {

// Byte i of the result is byte (selector >> 4i) mod 16 of the eight bytes of `first`, then `second`; each of the
// selector's digits must be below 8.
__device__ __forceinline__ std::uint32_t permute_bytes(std::uint32_t first, std::uint32_t second,
                                                       std::uint32_t selector) {
#if defined(SIGLIP2_SIMT)
  const std::uint64_t bytes = static_cast<std::uint64_t>(second) << 32 | first;
  std::uint32_t result = 0;
  for (int i = 0; i < 4; ++i)
    result |= static_cast<std::uint32_t>(bytes >> (8 * (selector >> (4 * i) & 7)) & 0xFF) << (8 * i);
  return result;
#else
  return __byte_perm(first, second, selector);
#endif
}

// The word that begins `bits` (0 to 31) above the start of `low`, followed by `high`.
__device__ __forceinline__ std::uint32_t shift_words(std::uint32_t low, std::uint32_t high, std::uint32_t bits) {
#if defined(SIGLIP2_SIMT)
  return static_cast<std::uint32_t>((static_cast<std::uint64_t>(high) << 32 | low) >> bits);
#else
  return __funnelshift_r(low, high, bits);
#endif
}

// sum + Σ bytes[i] · weights[i], modulo 2^32. Bytes are unsigned; so are the weights, or they are signed.
__device__ __forceinline__ std::uint32_t dot_bytes(std::uint32_t bytes, std::uint32_t weights, std::uint32_t sum) {
#if defined(SIGLIP2_SIMT)
  for (int i = 0; i < 4; ++i)
    sum += (bytes >> (8 * i) & 0xFF) * (weights >> (8 * i) & 0xFF);
  return sum;
#else
  return __dp4a(bytes, weights, sum);
#endif
}
__device__ __forceinline__ std::uint32_t dot_bytes_signed(std::uint32_t bytes, std::uint32_t weights,
                                                          std::uint32_t sum) {
#if defined(SIGLIP2_SIMT)
  for (int i = 0; i < 4; ++i) {
    const auto weight = static_cast<std::int8_t>(weights >> (8 * i) & 0xFF);
    sum += (bytes >> (8 * i) & 0xFF) * static_cast<std::uint32_t>(std::int32_t{weight});
  }
  return sum;
#else
  std::uint32_t result;
  asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(result) : "r"(bytes), "r"(weights), "r"(sum));
  return result;
#endif
}

}  // namespace siglip2::cuda
