// GELU of rows on CPUs.
#pragma once

#include "cpu/simd/simd_math.h"
#include "tensor/dtype.h"

namespace siglip2::SIGLIP2_ISA {

// GELU beside a product with weights of a type: where operands are rounded anyway, the short one.
struct GeluBesideProduct {
  DType weights;

  SIGLIP2_INLINE Vec operator()(Vec x) const { return weights == DType::kFloat32 ? gelu_tanh(x) : gelu_tanh_short(x); }
};

// output[i] = gelu(input[i]), of float32 or BFloat16; may be the same memory.
template <typename Value, typename Gelu>
SIGLIP2_INLINE void gelu_row(const Value* input, float* output, std::int64_t columns, const Gelu& gelu) {
  std::int64_t i = 0;
  for (; i + kLanes <= columns; i += kLanes)
    store(output + i, gelu(load(input + i)));
  if (i < columns) {
    const int rest = static_cast<int>(columns - i);
    store_first(output + i, gelu(load_first(input + i, rest)), rest);
  }
}

}  // namespace siglip2::SIGLIP2_ISA
