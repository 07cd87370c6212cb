// Barriers of a block: every thread that takes part waits for the others, and memory accesses before it are seen after.
#pragma once

#include "cuda/prim/site.h"

namespace siglip2::cuda {

// All threads of the block.
__device__ __forceinline__ void block_barrier(Site site = Site::here()) {
#if defined(SIGLIP2_SIMT)
  simt::block_barrier(site);
#else
  __syncthreads();
#endif
}

// Barrier `id` (1 to 15; 0 is block_barrier's) of `threads` threads, a multiple of 32, whole warps. `wait` arrives and
// waits until all have arrived; `arrive` only arrives.
__device__ __forceinline__ void named_barrier_wait(int id, int threads, Site site = Site::here()) {
#if defined(SIGLIP2_SIMT)
  simt::named_barrier_wait(id, threads, site);
#else
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
#endif
}
__device__ __forceinline__ void named_barrier_arrive(int id, int threads, Site site = Site::here()) {
#if defined(SIGLIP2_SIMT)
  simt::named_barrier_arrive(id, threads, site);
#else
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
#endif
}

}  // namespace siglip2::cuda
