// The condition of a bounds check, marked as one: `if (in_bounds(row < rows))`. Mutation tests make each of them true
// in turn and expect the emulated device to notice the access that follows, or the result to be wrong.
#pragma once

#include "cuda/prim/site.h"

namespace siglip2::cuda {

#if defined(SIGLIP2_SIMT)
inline bool in_bounds(bool condition, Site site = Site::here()) {
  return simt::in_bounds(condition, site);
}
#else
__device__ __forceinline__ bool in_bounds(bool condition) {
  return condition;
}
#endif

}  // namespace siglip2::cuda
