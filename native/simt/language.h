// The words of CUDA C++ for the host compiler: kernels then run on the emulated device of simt/simt.h.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "simt/simt.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

#define threadIdx (::siglip2::simt::Coordinates{::siglip2::simt::thread_index(), 0, 0})
#define blockIdx (::siglip2::simt::Coordinates{::siglip2::simt::block_index_x(), ::siglip2::simt::block_index_y(), 0})
#define blockDim (::siglip2::simt::Coordinates{::siglip2::simt::block_threads(), 1, 1})
#define gridDim (::siglip2::simt::Coordinates{::siglip2::simt::grid_blocks_x(), ::siglip2::simt::grid_blocks_y(), 1})
