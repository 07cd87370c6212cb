// IEEE half precision, which stored tables may have. Widening is exact.
#pragma once

#include <cstdint>

#include "cuda/prim/bfloat16.h"

#if defined(SIGLIP2_SIMT)
#include "tensor/convert.h"
#endif

namespace siglip2::cuda {

struct float16 {
  std::uint16_t bits;
};

__device__ __forceinline__ float to_float(float16 value) {
#if defined(SIGLIP2_SIMT)
  return float16_to_float(value.bits);
#else
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
  return result;
#endif
}

}  // namespace siglip2::cuda
