// Matrix instructions of a warp (sm_80): fragments from shared memory, and products of bfloat16 with float32
// accumulators. Layouts are those of the PTX ISA, "Matrix Fragments for mma.m16n8k16" and "…k8"; with g = lane / 4 and
// t = lane mod 4, each register holding two neighbouring columns (A) or rows (B), the first in the lower half:
//
//   A, 16 × 16: a0 = A[g][2t..], a1 = A[g + 8][2t..], a2 = A[g][2t + 8..], a3 = A[g + 8][2t + 8..]   (16 × 8: a0, a1)
//   B, 16 × 8:  b0 = B[2t..][g], b1 = B[2t + 8..][g]                                                 (8 × 8: b0)
//   D, 16 × 8:  d0, d1 = D[g][2t], D[g][2t + 1],  d2, d3 = D[g + 8][2t], D[g + 8][2t + 1]
#pragma once

#include <cstdint>

#include "cuda/prim/async_copy.h"
#include "cuda/prim/site.h"

namespace siglip2::cuda {

// Loads Count 8 × 8 matrices of 16-bit elements (1, 2 or 4): lane 8i + r gives the address of row r of matrix i (16
// bytes, 16-byte aligned); register i of lane l then holds elements 2(l mod 4), +1 of row l / 4 of matrix i, or, with
// Transposed, of its transpose.
template <int Count, bool Transposed = false>
__device__ __forceinline__ void load_matrices(std::uint32_t (&registers)[Count], const void* shared_row,
                                              Site site = Site::here()) {
  static_assert(Count == 1 || Count == 2 || Count == 4);
#if defined(SIGLIP2_SIMT)
  simt::load_matrices(registers, Count, Transposed, shared_row, site);
#else
  const std::uint32_t address = shared_address(shared_row);
  if constexpr (Count == 1 && !Transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(registers[0]) : "r"(address) : "memory");
  if constexpr (Count == 1 && Transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
                 : "=r"(registers[0])
                 : "r"(address)
                 : "memory");
  if constexpr (Count == 2 && !Transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(registers[0]), "=r"(registers[1])
                 : "r"(address)
                 : "memory");
  if constexpr (Count == 2 && Transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(registers[0]), "=r"(registers[1])
                 : "r"(address)
                 : "memory");
  if constexpr (Count == 4 && !Transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                 : "r"(address)
                 : "memory");
  if constexpr (Count == 4 && Transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                 : "r"(address)
                 : "memory");
#endif
}

// accumulator += a · b, [16, 16] · [16, 8].
__device__ __forceinline__ void multiply_16x8x16(float (&accumulator)[4], const std::uint32_t (&a)[4],
                                                 const std::uint32_t (&b)[2], Site site = Site::here()) {
#if defined(SIGLIP2_SIMT)
  simt::multiply(accumulator, a, b, 16, site);
#else
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(accumulator[0]), "+f"(accumulator[1]), "+f"(accumulator[2]), "+f"(accumulator[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// accumulator += a · b, [16, 8] · [8, 8].
__device__ __forceinline__ void multiply_16x8x8(float (&accumulator)[4], const std::uint32_t (&a)[2],
                                                const std::uint32_t (&b)[1], Site site = Site::here()) {
#if defined(SIGLIP2_SIMT)
  simt::multiply(accumulator, a, b, 8, site);
#else
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
               : "+f"(accumulator[0]), "+f"(accumulator[1]), "+f"(accumulator[2]), "+f"(accumulator[3])
               : "r"(a[0]), "r"(a[1]), "r"(b[0]));
#endif
}

}  // namespace siglip2::cuda
