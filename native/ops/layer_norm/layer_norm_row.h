// Layer normalisation of one row on CPUs: what the operation and products of normed rows are made of.
//
// A row's second and third pass (variance, output) find it in the L1 cache. Four partial sums a pass hide the latency
// of an addition and keep the rounding error near that of a pairwise sum.
#pragma once

#include <cmath>

#include "cpu/simd/row_math.h"

namespace siglip2::SIGLIP2_ISA {

// Σ of term(i, lanes) over the vectors of a row.
template <typename Term>
SIGLIP2_INLINE float sum_row(std::int64_t width, Term term) {
  Vec sums[4] = {zero(), zero(), zero(), zero()};
  std::int64_t i = 0;
  for (; i + 4 * kLanes <= width; i += 4 * kLanes) {
    for (int v = 0; v < 4; ++v)
      sums[v] = sums[v] + term(i + v * kLanes, kLanes);
  }
  for (; i + kLanes <= width; i += kLanes)
    sums[0] = sums[0] + term(i, kLanes);
  if (i < width) {
    const int rest = static_cast<int>(width - i);
    sums[1] = sums[1] + select_first(rest, term(i, rest), zero());
  }
  return reduce_add((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

struct Statistics {
  float mean;
  float scale;  // 1/√(variance + epsilon)
};
inline Statistics statistics_of(const float* input, std::int64_t width, float epsilon) {
  const float mean = sum_row(width, [=](std::int64_t i, int lanes) { return load_up_to(input + i, lanes); }) /
                     static_cast<float>(width);
  const Vec means = broadcast(mean);
  const float squares = sum_row(width, [=](std::int64_t i, int lanes) {
    const Vec difference = load_up_to(input + i, lanes) - means;
    return difference * difference;
  });
  return {mean, 1.0f / std::sqrt(squares / static_cast<float>(width) + epsilon)};
}

// output = (input − mean) · scale · weight + bias; output may be the input.
template <typename Value>
void normalize_row(const float* input, const float* weight, const float* bias, float epsilon, std::int64_t width,
                   Value* output) {
  const Statistics statistics = statistics_of(input, width, epsilon);
  const Vec mean = broadcast(statistics.mean), scale = broadcast(statistics.scale);
  for_each_vector(width, [&](std::int64_t i, int lanes) {
    const Vec normed = (load_up_to(input + i, lanes) - mean) * scale;
    store_up_to(output + i, multiply_add(normed, load_up_to(weight + i, lanes), load_up_to(bias + i, lanes)), lanes);
  });
}

}  // namespace siglip2::SIGLIP2_ISA
