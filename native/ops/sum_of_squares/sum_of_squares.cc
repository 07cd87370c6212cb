#include "ops/sum_of_squares/sum_of_squares.h"

#include "tensor/shape_check.h"

namespace siglip2 {

void sum_of_squares(const OpTable& table, OpContext& context, const SumOfSquaresArgs* arrays, std::int64_t count) {
  const char* const name = "sum_of_squares";
  for (std::int64_t i = 0; i < count; ++i) {
    check_at_least(name, "count", arrays[i].count, 0);
    check_pointer(name, "result", arrays[i].result);
    if (arrays[i].count > 0) check_pointer(name, "values", arrays[i].values);
  }
  table.sum_of_squares(context, arrays, count);
}

}  // namespace siglip2
