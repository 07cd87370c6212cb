// Σ xᵢ² in double precision, for the global norm of gradients. Not finite when an element is not.
//
//   values   [count]  float32, dense
//   result   host memory, overwritten
//
// The order of the sum depends on `count` alone.
#pragma once

#include <cstdint>

#include "backend/op_table.h"

namespace siglip2 {

struct SumOfSquaresArgs {
  const float* values = nullptr;
  std::int64_t count = 0;
  double* result = nullptr;
};

// Of `count` arrays.
void sum_of_squares(const OpTable& table, OpContext& context, const SumOfSquaresArgs* arrays, std::int64_t count);
inline void sum_of_squares(const OpTable& table, OpContext& context, const SumOfSquaresArgs& args) {
  sum_of_squares(table, context, &args, 1);
}

void sum_of_squares_reference(OpContext& context, const SumOfSquaresArgs* arrays, std::int64_t count);

}  // namespace siglip2
