// The layout of packed weights on GPUs: row-major [out_features, in_features], rows padded with zeros to a multiple of
// eight elements, so that each begins at a multiple of 16 bytes.
#pragma once

#include "ops/linear/linear.h"

namespace siglip2::cuda {

constexpr std::int64_t packed_row(std::int64_t in_features) {
  return (in_features + 7) / 8 * 8;
}

// The weight as a matrix, padding included: that are zeros, which add nothing to a product.
inline ConstMatrixView matrix_of(const PackedWeight& weight) {
  const std::int64_t row = packed_row(weight.in_features);
  return {weight.data, weight.dtype, weight.out_features, row, row};
}

}  // namespace siglip2::cuda
