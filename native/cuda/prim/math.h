// Functions of the special function unit: fast, with the errors stated. Where a contract needs more, kernels use the
// functions of <cmath> (exp2f, tanhf, log1pf …), which CUDA has within 1 or 2 units in the last place. On the emulated
// device results are jittered within the stated error, so that no test leans on a host's digits.
#pragma once

#include <cmath>

#include "cuda/prim/site.h"

namespace siglip2::cuda {

// 2^x; relative error at most 2^-22, subnormal results are 0.
__device__ __forceinline__ float exp2_fast(float x) {
#if defined(SIGLIP2_SIMT)
  return simt::jitter(std::exp2(x));
#else
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
#endif
}

// 1/x; at most 1 unit in the last place off, 0 for |x| above 2^126.
__device__ __forceinline__ float reciprocal_fast(float x) {
#if defined(SIGLIP2_SIMT)
  return simt::jitter(1.0f / x);
#else
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
#endif
}

// tanh(x); relative error at most 2^-11: for bfloat16 results only.
__device__ __forceinline__ float tanh_fast(float x) {
#if defined(SIGLIP2_SIMT)
  return simt::jitter(std::tanh(x), 1.0f / 4096);
#else
  float result;
  asm("tanh.approx.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
#endif
}

}  // namespace siglip2::cuda
