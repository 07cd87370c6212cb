// Sums over many rows, column by column: what the gradients of tables are.
//
// Such a sum may have millions of terms (the padding token of a long run of batches), where plain float32 would lose
// several digits. So every sum carries its rounding errors in a second number: the result is as good as a sum in double
// precision, at the price of a few additions that hide behind the reading of the rows. Columns are independent, so how
// they are dealt out to threads does not show in the results.
#pragma once

#include "cpu/simd/simd.h"

namespace siglip2::SIGLIP2_ISA {

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
