// Sums over many rows, as gradients of tables are. A sum carries its rounding errors in a second number: the result is
// as good as a sum in double precision, of which most GPUs have little.
#pragma once

#include "cuda/language.h"

namespace siglip2::cuda {

struct CompensatedSum {
  float sum = 0.0f;  // the number sum + low, rounded to float32
  float low = 0.0f;

  // To about 46 bits. A sum that is not finite makes `low` NaN.
  __device__ __forceinline__ void add(float term) {
    const float total = sum + term;
    const float added = total - sum;
    const float error = low + ((sum - (total - added)) + (term - added));
    sum = total + error;
    low = error - (sum - total);
  }
};

}  // namespace siglip2::cuda
