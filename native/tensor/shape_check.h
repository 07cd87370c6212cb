// Argument checks that the operations share. Each throws ERR_SIGLIP_SHAPE with the operation, the argument, what was
// expected and what came.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "tensor/error.h"
#include "tensor/matrix_view.h"

namespace siglip2 {

[[noreturn]] inline void throw_shape_error(const char* operation, const std::string& what) {
  throw Error(kErrorShape, std::string(operation) + ": " + what);
}

// Elements of a shape, or −1 when a size is negative or they are too many to be counted in bytes. A shape that is so
// large in its other dimensions counts as too large even if one of them is 0.
inline std::int64_t count_elements(const std::vector<std::int64_t>& shape) {
  std::int64_t count = 1;
  std::int64_t bound = 1;
  for (const std::int64_t size : shape) {
    if (size < 0) return -1;
    if (size != 0 && bound > std::numeric_limits<std::int64_t>::max() / 8 / size) return -1;
    if (size != 0) bound *= size;
    count *= size;
  }
  return count;
}

// `name` must be `expected`.
inline void check_equal(const char* operation, const char* name, std::int64_t actual, std::int64_t expected) {
  if (actual == expected) return;
  throw_shape_error(operation,
                    std::string(name) + " must be " + std::to_string(expected) + ", got " + std::to_string(actual));
}

// `name` must be from `least` to `most`.
inline void check_range(const char* operation, const char* name, std::int64_t actual, std::int64_t least,
                        std::int64_t most) {
  if (actual >= least && actual <= most) return;
  throw_shape_error(operation, std::string(name) + " must be from " + std::to_string(least) + " to " +
                                   std::to_string(most) + ", got " + std::to_string(actual));
}

inline void check_at_least(const char* operation, const char* name, std::int64_t actual, std::int64_t least) {
  if (actual >= least) return;
  throw_shape_error(
      operation, std::string(name) + " must be at least " + std::to_string(least) + ", got " + std::to_string(actual));
}

// Memory that an operation reads or writes must be there.
inline void check_pointer(const char* operation, const char* name, const void* pointer) {
  if (pointer == nullptr) throw_shape_error(operation, std::string(name) + " is missing");
}

// A matrix must have `rows` rows and `columns` columns of `dtype`, at a stride that holds its columns.
inline void check_matrix(const char* operation, const char* name, const ConstMatrixView& matrix, DType dtype,
                         std::int64_t rows, std::int64_t columns) {
  const auto shape = [](DType type, std::int64_t row_count, std::int64_t column_count) {
    return std::string(name_of(type)) + " [" + std::to_string(row_count) + ", " + std::to_string(column_count) + "]";
  };
  if (matrix.dtype != dtype || matrix.rows != rows || matrix.columns != columns) {
    throw_shape_error(operation, std::string(name) + " must be " + shape(dtype, rows, columns) + ", got " +
                                     shape(matrix.dtype, matrix.rows, matrix.columns));
  }
  if (rows > 1 && matrix.stride < columns) {
    throw_shape_error(operation, std::string(name) + " must have a row stride of at least " + std::to_string(columns) +
                                     ", got " + std::to_string(matrix.stride));
  }
  if (rows > 0 && columns > 0) check_pointer(operation, name, matrix.data);
}

// The element type of activations, when the device called `device` has it among `supported`
// (OpTable::activation_types); ERR_SIGLIP_UNSUPPORTED, with what the device can do, otherwise.
inline DType check_activation_type(const char* operation, const char* name, DType dtype, const char* device,
                                   std::uint32_t supported) {
  if ((supported >> static_cast<int>(dtype) & 1u) != 0) return dtype;
  std::string types;
  for (const DType each :
       {DType::kFloat32, DType::kFloat16, DType::kBFloat16, DType::kInt32, DType::kUInt8, DType::kInt8}) {
    if ((supported >> static_cast<int>(each) & 1u) == 0) continue;
    types += (types.empty() ? "" : " and ") + std::string(name_of(each));
  }
  throw Error(kErrorUnsupported, std::string(operation) + ": " + name + " is " + name_of(dtype) + "; device \"" +
                                     device + "\" computes in " + types);
}

// The type of a call's activations where an operand of its products has type `operand`: the same, or float32 beside
// operands that lie rounded (OpTable::rounded_operands).
inline DType activations_beside(DType operand, DType product_type, bool rounded_operands) {
  const bool rounded = rounded_operands && operand == DType::kBFloat16 && product_type == DType::kBFloat16;
  return rounded ? DType::kFloat32 : operand;
}

// As check_matrix, of an operand of products in `product_type`: it has the type of activations, or lies rounded.
inline void check_operand(const char* operation, const char* name, const ConstMatrixView& matrix, DType activations,
                          DType product_type, bool rounded_operands, std::int64_t rows, std::int64_t columns) {
  const bool fits = activations_beside(matrix.dtype, product_type, rounded_operands) == activations;
  check_matrix(operation, name, matrix, fits ? matrix.dtype : activations, rows, columns);
}

// Prefix sums: `count` + 1 entries that start at 0 and never fall.
inline void check_ascending_offsets(const char* operation, const char* name, const std::int32_t* offsets,
                                    std::int64_t count) {
  check_pointer(operation, name, offsets);
  if (offsets[0] != 0) {
    throw_shape_error(operation, std::string(name) + " must start at 0, got " + std::to_string(offsets[0]));
  }
  for (std::int64_t i = 0; i < count; ++i) {
    if (offsets[i + 1] < offsets[i]) {
      throw_shape_error(operation, std::string(name) + " must not fall: entry " + std::to_string(i + 1) + " is " +
                                       std::to_string(offsets[i + 1]) + " after " + std::to_string(offsets[i]));
    }
  }
}

// The same, ending at `total`.
inline void check_offsets(const char* operation, const char* name, const std::int32_t* offsets, std::int64_t count,
                          std::int64_t total) {
  check_ascending_offsets(operation, name, offsets, count);
  if (offsets[count] != total) {
    throw_shape_error(operation, std::string(name) + " must end at " + std::to_string(total) + ", got " +
                                     std::to_string(offsets[count]));
  }
}

// The same, of sequences that may leave rows over when their lengths have a bound, and are within it; 0: no bound.
inline void check_bounded_offsets(const char* operation, const char* name, const std::int32_t* offsets,
                                  std::int64_t count, std::int64_t total, std::int64_t length_bound) {
  if (length_bound == 0) return check_offsets(operation, name, offsets, count, total);
  check_ascending_offsets(operation, name, offsets, count);
  check_range(operation, (std::string("the end of ") + name).c_str(), offsets[count], 0, total);
  for (std::int64_t i = 0; i < count; ++i)
    check_range(operation, (std::string("a length in ") + name).c_str(), offsets[i + 1] - offsets[i], 0, length_bound);
}

}  // namespace siglip2
