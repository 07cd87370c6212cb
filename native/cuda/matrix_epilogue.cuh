// What becomes of the sums of a matrix product. An epilogue is a kernel parameter with these members:
//
//   void start(const BlockPosition&)            once, before the others
//   auto columns<N>(column)                     what N neighbouring columns share, from `column` on: their biases, say
//   void row<N>(columns, row, column, values)   N sums of one row: float, or double where the product keeps more
//   digits.
//                                               Rows and columns may lie outside of the result; it checks.
//   void finish(unsigned char* shared)          once, by all threads of the block together; the shared memory of the
//                                               operands is free after a barrier
//
// A thread has its columns for many rows, N = 8 in the tensor-core kernel and 4 in the float32 one: whole accesses of
// 16 bytes, wherever the result's rows are aligned.
#pragma once

#include <cstdint>

#include "cuda/activations.h"
#include "cuda/prim/bounds.h"
#include "cuda/prim/launch.h"

namespace siglip2::cuda {

struct BlockPosition {
  std::int64_t first_row;
  std::int64_t first_column;
  std::int64_t index;  // of the tile among those of the result
  std::int64_t part;   // of the depth
};

struct PlainEpilogue {
  __device__ __forceinline__ void start(const BlockPosition&) {}
  __device__ __forceinline__ void finish(unsigned char*) {}
};

// N neighbouring values, of which `left` exist; `vectors`: by 16 bytes where all do. What does not exist is 0.
template <int N, typename T>
__device__ __forceinline__ void load_values(const T* from, float (&values)[N], bool vectors, std::int64_t left) {
  if (vectors && in_bounds(N <= left)) return load_floats(from, values);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    values[i] = 0;
    if (in_bounds(i < left)) values[i] = to_float(from[i]);
  }
}

template <int N, typename T>
__device__ __forceinline__ void store_values(T* to, const float (&values)[N], bool vectors, std::int64_t left) {
  if (vectors && in_bounds(N <= left)) return store_floats(to, values);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    if (in_bounds(i < left)) to[i] = from_float<T>(values[i]);
  }
}

}  // namespace siglip2::cuda
