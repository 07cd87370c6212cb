// Vectors of float32 for the CPU kernels: one type, Vec, of the build's width, and plain functions on it. The header of
// the instruction set that is being compiled is chosen here; all of them offer the same names.
//
//   kLanes                                lanes of a Vec
//   kTileRows, kTileVectors, kTileSteps   register tile of cpu/simd/tile.h that fills the registers, and how many
//                                         terms of its sums are added in one turn of its loop
//   zero() broadcast(x)
//   load(p) store(p, v)                   any alignment
//   load_first(p, n) store_first(p, v, n) the first n lanes, 0 ≤ n ≤ kLanes; touches no other memory; other lanes are 0
//   load_bfloat16(p) load_float16(p)      kLanes two-byte values of any alignment, widened exactly
//   store_bfloat16(p, v)                  rounded as below, in two bytes each
//   round_to_bfloat16(v)                  the nearest bfloat16 numbers, ties to even, as float32; NaN stays NaN
//   join_pair(a, b)                       of rounded numbers, a in the lower half of each lane, b in the upper
//   first_of_pair(v) second_of_pair(v)    a and b of that, as float32
//   rounded_bits(v)                       the nearest integers below 2²², ties to even, in the low half of each lane
//   join_bytes(a, b, c, d)                the low bytes of these, from the lowest byte of each lane up
//   join_halves(a, b)                     the low halves of these, a's in the lower one
//   flip_bytes(v)                         128 more for each byte: signed ones become unsigned
//   even_bytes(v) odd_bytes(v)            signed bytes 0 and 2, or 1 and 3, as halves
//   add_half_products(sum, a, b)          sum + the products of lower and of upper halves, 32-bit integers
//   int_to_float(v) subtract_int(a, b)    of 32-bit integers
//   a + b, a - b, a * b, a / b, sqrt(v)   correctly rounded
//   reciprocal(v)                         1/v to one unit in the last place, for v from 2⁻¹²⁶ to 2¹²⁶
//   multiply_add(a, b, c)                 a·b + c, rounded once where the machine has a fast instruction for it
//   fused_multiply_add(a, b, c)           a·b + c with an exact product, on every machine
//   max(a, b) min(a, b)                   b when either is NaN
//   select_first(n, a, b)                 the first n lanes of a, the others of b
//   select_negative(x, a, b)              a where x < 0, else b
//   power_of_two_bits(v)                  the low bits of each lane, moved into the exponent; see cpu/simd/simd_math.h
//   reduce_add(v)                         the sum of all lanes
//   prefetch(p)                           asks for the cache line at p, for reading, in the L2 cache
//   prefetch_near(p) prefetch_written(p)  in the L1 cache, for reading, or for writing
//   transpose(rows)                       kLanes vectors as a square matrix
//   keep_in_register(v)                   hides that v is a constant, which the compiler would load again and again
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu/isa.h"

#define SIGLIP2_INLINE inline __attribute__((always_inline))

// Before a short loop over registers: unrolled while arrays of Vec can still become registers.
#define SIGLIP2_UNROLL _Pragma("GCC unroll 16")

#if defined(SIGLIP2_ISA_avx512)
#include "cpu/simd/vec_avx512.h"
#elif defined(SIGLIP2_ISA_avx2)
#include "cpu/simd/vec_avx2.h"
#else
#include "cpu/simd/vec_generic.h"
#endif

namespace siglip2::SIGLIP2_ISA {

// A bfloat16 number in memory, which is read and written like float32: widened, and rounded.
struct BFloat16 {
  std::uint16_t bits;
};
SIGLIP2_INLINE Vec load(const BFloat16* source) {
  return load_bfloat16(source);
}
SIGLIP2_INLINE void store(BFloat16* target, Vec v) {
  store_bfloat16(target, v);
}
SIGLIP2_INLINE Vec load_first(const BFloat16* source, int count) {
  BFloat16 lanes[kLanes] = {};
  std::memcpy(lanes, source, static_cast<std::size_t>(count) * sizeof(BFloat16));
  return load(lanes);
}
SIGLIP2_INLINE void store_first(BFloat16* target, Vec v, int count) {
  BFloat16 lanes[kLanes];
  store(lanes, v);
  std::memcpy(target, lanes, static_cast<std::size_t>(count) * sizeof(BFloat16));
}

// Adding 1.5 · 2²³ leaves no bit for what is behind the point.
inline constexpr float kRoundToInteger = 12582912.0f;

SIGLIP2_INLINE Vec rounded_bits(Vec v) {
  return v + broadcast(kRoundToInteger);
}

SIGLIP2_INLINE void keep_in_register([[maybe_unused]] Vec& v) {
#if defined(SIGLIP2_ISA_avx512)
  asm("" : "+v"(v.value));
#endif
}

SIGLIP2_INLINE void prefetch(const void* address) {
  __builtin_prefetch(address, 0, 2);
}

SIGLIP2_INLINE void prefetch_near(const void* address) {
  __builtin_prefetch(address, 0, 3);
}

SIGLIP2_INLINE void prefetch_written(const void* address) {
#if defined(__x86_64__)
  // The compiler's own function reads unless all machines of the build are known to have the instruction.
  asm volatile("prefetchw %0" : : "m"(*static_cast<const char*>(address)));
#else
  __builtin_prefetch(address, 1, 3);
#endif
}

}  // namespace siglip2::SIGLIP2_ISA
