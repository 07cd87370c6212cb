// The dynamic shared memory of the block, aligned to 128 bytes: the only shared memory that kernels use. Its size is
// the launch's. Its first contents are undefined, and the emulated device notices when they are read.
#pragma once

#include "cuda/prim/site.h"

namespace siglip2::cuda {

__device__ __forceinline__ unsigned char* shared_memory() {
#if defined(SIGLIP2_SIMT)
  return simt::shared_memory();
#else
  extern __shared__ __align__(128) unsigned char dynamic_shared_memory[];
  return dynamic_shared_memory;
#endif
}

}  // namespace siglip2::cuda
