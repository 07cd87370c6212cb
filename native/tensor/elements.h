// Single elements of matrices of either floating point type, for code that is there to be right, not fast.
#pragma once

#include "tensor/convert.h"
#include "tensor/matrix_view.h"

namespace siglip2 {

// Of a matrix in float32 or bfloat16.
inline float element(const ConstMatrixView& matrix, std::int64_t row, std::int64_t column) {
  const std::int64_t index = row * matrix.stride + column;
  return matrix.dtype == DType::kBFloat16 ? bfloat16_to_float(matrix.as<std::uint16_t>()[index])
                                          : matrix.as<float>()[index];
}

// The value rounded to float32, and then to bfloat16 where the matrix has that type.
inline void set_element(const MatrixView& matrix, std::int64_t row, std::int64_t column, double value) {
  const std::int64_t index = row * matrix.stride + column;
  const auto rounded = static_cast<float>(value);
  if (matrix.dtype == DType::kBFloat16)
    matrix.as<std::uint16_t>()[index] = float_to_bfloat16(rounded);
  else
    matrix.as<float>()[index] = rounded;
}

}  // namespace siglip2
