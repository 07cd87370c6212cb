// Sums over rows, column by column: what the gradients of biases and tables are.
//
// A table's sum may have millions of terms (the padding token of a long run of batches), where plain float32 would lose
// several digits. So it carries its rounding errors in a second number: the result is as good as a sum in double
// precision, at the price of a few additions that hide behind the reading of the rows. Columns are independent, so how
// they are dealt out to threads does not show in the results.
#pragma once

#include "cpu/simd/simd.h"

namespace siglip2::SIGLIP2_ISA {

// Adds the sum of each of `columns` columns of a few rows to `sums`, which has room up to the next multiple of kLanes.
template <typename Value>
SIGLIP2_INLINE void add_column_sums(const Value* source, std::int64_t stride, std::int64_t rows, std::int64_t columns,
                                    float* sums) {
  for (std::int64_t column = 0; column < columns; column += kLanes) {
    const std::int64_t left = columns - column;
    const int lanes = static_cast<int>(left < kLanes ? left : kLanes);
    Vec sum = zero();
    for (std::int64_t row = 0; row < rows; ++row) {
      const Value* const values = source + row * stride + column;
      sum = sum + (lanes == kLanes ? load(values) : load_first(values, lanes));
    }
    store(sums + column, load(sums + column) + sum);
  }
}

// Adds `term` to the number sum + low, to about 46 bits; `sum` is that number rounded to float32. A sum that is not
// finite makes `low` NaN.
SIGLIP2_INLINE void add_compensated(Vec& sum, Vec& low, Vec term) {
  const Vec total = sum + term;
  const Vec added = total - sum;
  const Vec error = low + ((sum - (total - added)) + (term - added));
  sum = total + error;
  low = error - (sum - total);
}

// How many of `width` columns one task takes: whole cache lines, at most about `most`, and as many tasks for every
// thread.
inline std::int64_t columns_per_task(std::int64_t width, int threads, std::int64_t most) {
  constexpr std::int64_t kLine = 16, kLeast = 32;
  const std::int64_t rounds = (width + threads * most - 1) / (threads * most);
  const std::int64_t columns = (width + threads * rounds - 1) / (threads * rounds);
  return columns < kLeast ? kLeast : (columns + kLine - 1) / kLine * kLine;
}

}  // namespace siglip2::SIGLIP2_ISA
