// The GELU of SigLIP, in its tanh form.
#pragma once

#include <cmath>

#include "cuda/prim/math.h"

namespace siglip2::cuda {

// 0.5 z (1 + tanh(√(2/π) (z + 0.044715 z³))) = z / (1 + 2^−v), v = 2 log2(e) √(2/π) (z + 0.044715 z³): without the
// cancellation of 1 + tanh at negative z. kFast: by the special function unit, for results in bfloat16.
template <bool kFast>
__device__ __forceinline__ float gelu_tanh(float z) {
  const float v = z * (2.302208198f + 0.1029432397f * (z * z));
  const float result = kFast ? z * reciprocal_fast(1.0f + exp2_fast(-v)) : z / (1.0f + exp2f(-v));
  return z < -64.0f ? -0.0f : result;  // −∞ · 0 is none
}

}  // namespace siglip2::cuda
