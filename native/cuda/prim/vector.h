// Several neighbouring values in one memory access. Addresses must be aligned to the size of the vector.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/prim/bfloat16.h"
#include "cuda/prim/site.h"

namespace siglip2::cuda {

template <typename T, int N>
struct alignas(sizeof(T) * N) Vector {
  T values[N];
  __host__ __device__ __forceinline__ T& operator[](int i) { return values[i]; }
  __host__ __device__ __forceinline__ const T& operator[](int i) const { return values[i]; }
};

// Values of T in 16 bytes, the widest access.
template <typename T>
inline constexpr int kWidest = static_cast<int>(16 / sizeof(T));

template <int N, typename T>
__device__ __forceinline__ Vector<T, N> load_vector(const T* address, Site site = Site::here()) {
#if defined(SIGLIP2_SIMT)
  simt::check_alignment(address, sizeof(Vector<T, N>), site);
#endif
  return *reinterpret_cast<const Vector<T, N>*>(address);
}

template <typename T, int N>
__device__ __forceinline__ void store_vector(T* address, const Vector<T, N>& vector, Site site = Site::here()) {
#if defined(SIGLIP2_SIMT)
  simt::check_alignment(address, sizeof(Vector<T, N>), site);
#endif
  *reinterpret_cast<Vector<T, N>*>(address) = vector;
}

// Whether rows of a matrix can be read as vectors of `bytes` bytes: its start and the distance between rows are
// multiples of that.
inline bool rows_aligned(const void* data, std::int64_t stride, std::size_t element_size, std::size_t bytes = 16) {
  return reinterpret_cast<std::uintptr_t>(data) % bytes == 0 &&
         static_cast<std::size_t>(stride) * element_size % bytes == 0;
}

}  // namespace siglip2::cuda
