// Rows that a product takes its values from: float32, or bfloat16 where it rounds them to that anyway.
#pragma once

#include "cpu/simd/simd.h"
#include "tensor/matrix_view.h"

namespace siglip2::SIGLIP2_ISA {

class Operand {
 public:
  Operand() = default;
  Operand(const float* values, std::int64_t stride) : values_(values), stride_(stride) {}
  Operand(const ConstMatrixView& view)  // NOLINT: a matrix of these types is an operand
      : values_(view.data), stride_(view.stride), rounded_(view.dtype == DType::kBFloat16) {}

  std::int64_t stride() const { return stride_; }
  // Whether the values are bfloat16.
  bool rounded() const { return rounded_; }
  // The rows from one on, from a column on.
  Operand from(std::int64_t row, std::int64_t column) const {
    Operand part = *this;
    const std::int64_t size = rounded_ ? sizeof(BFloat16) : sizeof(float);
    part.values_ = static_cast<const char*>(values_) + (row * stride_ + column) * size;
    return part;
  }
  // Of operands that are not rounded.
  const float* floats() const { return static_cast<const float*>(values_); }
  // Calls body(values), with a pointer to float or BFloat16.
  template <typename Body>
  SIGLIP2_INLINE void read(const Body& body) const {
    if (rounded_)
      body(static_cast<const BFloat16*>(values_));
    else
      body(floats());
  }

 private:
  const void* values_ = nullptr;
  std::int64_t stride_ = 0;
  bool rounded_ = false;
};

}  // namespace siglip2::SIGLIP2_ISA
