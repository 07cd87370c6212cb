// The oracle: one element after the other, in extended precision where the machine has it.
#include "ops/sum_of_squares/sum_of_squares.h"

namespace siglip2 {

void sum_of_squares_reference(OpContext& context, const SumOfSquaresArgs* arrays, std::int64_t count) {
  for (std::int64_t array = 0; array < count; ++array) {
    const SumOfSquaresArgs& args = arrays[array];
    long double sum = 0;
    for (std::int64_t i = 0; i < args.count; ++i)
      sum += static_cast<long double>(args.values[i]) * static_cast<long double>(args.values[i]);
    *args.result = static_cast<double>(sum);
  }
}

}  // namespace siglip2
