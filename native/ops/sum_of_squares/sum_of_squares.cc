#include "ops/sum_of_squares/sum_of_squares.h"

#include "tensor/shape_check.h"

namespace siglip2 {

void sum_of_squares(const OpTable& table, OpContext& context, const SumOfSquaresArgs& args) {
  const char* const name = "sum_of_squares";
  check_at_least(name, "count", args.count, 0);
  check_pointer(name, "result", args.result);
  if (args.count > 0) check_pointer(name, "values", args.values);
  table.sum_of_squares(context, args);
}

}  // namespace siglip2
