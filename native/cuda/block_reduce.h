// Sums over the threads of a block.
#pragma once

#include "cuda/prim/barrier.h"
#include "cuda/prim/warp.h"

namespace siglip2::cuda {

// Replaces each of `values` by its sum over the block, the same bits in every thread and in every run. `shared` has
// kSums values for each warp of the block; it may be used again after the next barrier. Each call is a barrier of its
// own to mutation tests.
template <int kSums, typename T>
__device__ __forceinline__ void block_sum(T (&values)[kSums], T* shared, Site site = Site::here()) {
  const int warps = static_cast<int>(blockDim.x) / kWarpSize;
#pragma unroll
  for (int i = 0; i < kSums; ++i) {
    const T sum = warp_sum(values[i]);
    if (lane_index() == 0) shared[i * warps + warp_index()] = sum;
  }
  cuda::block_barrier(site);
#pragma unroll
  for (int i = 0; i < kSums; ++i) {
    T sum = shared[i * warps];
    for (int warp = 1; warp < warps; ++warp)
      sum += shared[i * warps + warp];
    values[i] = sum;
  }
}

}  // namespace siglip2::cuda
