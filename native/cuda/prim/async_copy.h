// Copies from global to shared memory that go on while the thread does (cp.async, sm_80).
//
// A copy belongs to the thread that issued it. Copies are committed in groups; `async_copy_wait<N>` returns when all
// but the thread's latest N groups have landed. Other threads see the data after a barrier that follows the wait.
#pragma once

#include <cstdint>

#include "cuda/prim/site.h"

namespace siglip2::cuda {

#if !defined(SIGLIP2_SIMT)
__device__ __forceinline__ std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}
#endif

// 16 bytes, both addresses 16-byte aligned; past the L1. When `valid` is false nothing is read and zeros are written
// (`source` must still be some pointer; it is not followed).
__device__ __forceinline__ void async_copy_16(void* shared, const void* source, bool valid = true,
                                              Site site = Site::here()) {
#if defined(SIGLIP2_SIMT)
  simt::async_copy(shared, source, 16, valid, site);
#else
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(source),
               "r"(valid ? 16 : 0)
               : "memory");
#endif
}

// 4 or 8 bytes, for rows without that alignment.
template <int Bytes>
__device__ __forceinline__ void async_copy_small(void* shared, const void* source, bool valid = true,
                                                 Site site = Site::here()) {
  static_assert(Bytes == 4 || Bytes == 8);
#if defined(SIGLIP2_SIMT)
  simt::async_copy(shared, source, Bytes, valid, site);
#else
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(shared)), "l"(source), "n"(Bytes),
               "r"(valid ? Bytes : 0)
               : "memory");
#endif
}

__device__ __forceinline__ void async_copy_commit(Site site = Site::here()) {
#if defined(SIGLIP2_SIMT)
  simt::async_copy_commit(site);
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

template <int Pending>
__device__ __forceinline__ void async_copy_wait(Site site = Site::here()) {
#if defined(SIGLIP2_SIMT)
  simt::async_copy_wait(Pending, site);
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
#endif
}

}  // namespace siglip2::cuda
