// Where in a kernel a primitive is called. On the emulated device every primitive takes its place in the source as a
// last, defaulted argument: reports name it, and mutation tests leave it out. On hardware it is nothing.
#pragma once

#include "cuda/language.h"

namespace siglip2::cuda {

#if defined(SIGLIP2_SIMT)
using Site = simt::Site;
#else
struct Site {
  static __host__ __device__ constexpr Site here() { return {}; }
};
#endif

}  // namespace siglip2::cuda
