// Neighbouring activations as float32, in accesses of at most 16 bytes.
#pragma once

#include "cuda/prim/vector.h"

namespace siglip2::cuda {

// kCount values from `address` on, which is aligned to 16 bytes or to all of them.
template <int kCount, typename T>
__device__ __forceinline__ void load_floats(const T* address, float (&values)[kCount]) {
  constexpr int kPart = kCount < kWidest<T> ? kCount : kWidest<T>;
#pragma unroll
  for (int first = 0; first < kCount; first += kPart) {
    const auto part = load_vector<kPart>(address + first);
#pragma unroll
    for (int i = 0; i < kPart; ++i)
      values[first + i] = to_float(part[i]);
  }
}

template <int kCount, typename T>
__device__ __forceinline__ void store_floats(T* address, const float (&values)[kCount]) {
  constexpr int kPart = kCount < kWidest<T> ? kCount : kWidest<T>;
#pragma unroll
  for (int first = 0; first < kCount; first += kPart) {
    Vector<T, kPart> part;
#pragma unroll
    for (int i = 0; i < kPart; ++i)
      part[i] = from_float<T>(values[first + i]);
    store_vector(address + first, part);
  }
}

}  // namespace siglip2::cuda
