// Views of two-dimensional data: what every operation reads and writes. A view owns nothing.
//
// All activations are packed ragged tokens, so two dimensions are enough: rows are tokens, columns are features (heads
// and head dimension flattened, head major). `stride` is the distance between rows in elements, which lets one product
// write query, key and value side by side and attention read them in place.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace siglip2 {

struct MatrixView {
  void* data = nullptr;
  DType dtype = DType::kFloat32;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t stride = 0;

  template <typename T>
  T* as() const {
    return static_cast<T*>(data);
  }
  // Columns [first, first + count) of the same rows.
  MatrixView slice_columns(std::int64_t first, std::int64_t count) const {
    return {static_cast<char*>(data) + first * static_cast<std::int64_t>(size_of(dtype)), dtype, rows, count, stride};
  }
  // Rows [first, first + count).
  MatrixView slice_rows(std::int64_t first, std::int64_t count) const {
    return {static_cast<char*>(data) + first * stride * static_cast<std::int64_t>(size_of(dtype)), dtype, count,
            columns, stride};
  }
};

struct ConstMatrixView {
  const void* data = nullptr;
  DType dtype = DType::kFloat32;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t stride = 0;

  ConstMatrixView() = default;
  ConstMatrixView(const void* data, DType dtype, std::int64_t rows, std::int64_t columns, std::int64_t stride)
      : data(data), dtype(dtype), rows(rows), columns(columns), stride(stride) {}
  ConstMatrixView(const MatrixView& view)  // NOLINT: a mutable view is a constant one
      : data(view.data), dtype(view.dtype), rows(view.rows), columns(view.columns), stride(view.stride) {}

  template <typename T>
  const T* as() const {
    return static_cast<const T*>(data);
  }
  ConstMatrixView slice_columns(std::int64_t first, std::int64_t count) const {
    return {static_cast<const char*>(data) + first * static_cast<std::int64_t>(size_of(dtype)), dtype, rows, count,
            stride};
  }
  ConstMatrixView slice_rows(std::int64_t first, std::int64_t count) const {
    return {static_cast<const char*>(data) + first * stride * static_cast<std::int64_t>(size_of(dtype)), dtype, count,
            columns, stride};
  }
};

}  // namespace siglip2
