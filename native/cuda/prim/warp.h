// What the 32 threads of a warp do together. All 32 must take part, at the same place in the program.
#pragma once

#include <cstdint>

#include "cuda/prim/site.h"

namespace siglip2::cuda {

inline constexpr int kWarpSize = 32;

__device__ __forceinline__ int lane_index() {
  return static_cast<int>(threadIdx.x) % kWarpSize;
}
__device__ __forceinline__ int warp_index() {
  return static_cast<int>(threadIdx.x) / kWarpSize;
}

// Orders memory accesses among the threads of the warp.
__device__ __forceinline__ void warp_barrier(Site site = Site::here()) {
#if defined(SIGLIP2_SIMT)
  simt::warp_barrier(site);
#else
  __syncwarp();
#endif
}

// The value of lane `source`. Shuffles order no memory accesses.
template <typename T>
__device__ __forceinline__ T shuffle(T value, int source, Site site = Site::here()) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
#if defined(SIGLIP2_SIMT)
  T result;
  simt::shuffle(&value, &result, sizeof(T), source, site);
  return result;
#else
  return __shfl_sync(0xFFFFFFFFu, value, source);
#endif
}

template <typename T>
__device__ __forceinline__ T shuffle_xor(T value, int mask, Site site = Site::here()) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
#if defined(SIGLIP2_SIMT)
  return shuffle(value, lane_index() ^ mask, site);
#else
  return __shfl_xor_sync(0xFFFFFFFFu, value, mask);
#endif
}

// Bit i: whether `predicate` holds in lane i.
__device__ __forceinline__ std::uint32_t ballot(bool predicate, Site site = Site::here()) {
#if defined(SIGLIP2_SIMT)
  return simt::ballot(predicate, site);
#else
  return __ballot_sync(0xFFFFFFFFu, predicate);
#endif
}

// Sum or maximum over groups of `Width` neighbouring lanes (a power of two), the same in every lane of the group. The
// order of the additions is fixed.
template <int Width = kWarpSize, typename T>
__device__ __forceinline__ T warp_sum(T value, Site site = Site::here()) {
#pragma unroll
  for (int mask = Width / 2; mask > 0; mask /= 2)
    value += shuffle_xor(value, mask, site);
  return value;
}

template <int Width = kWarpSize, typename T>
__device__ __forceinline__ T warp_max(T value, Site site = Site::here()) {
#pragma unroll
  for (int mask = Width / 2; mask > 0; mask /= 2) {
    const T other = shuffle_xor(value, mask, site);
    value = other > value ? other : value;
  }
  return value;
}

}  // namespace siglip2::cuda
