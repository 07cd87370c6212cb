// The entries of a position table's axis that a grid's axis draws on, and their weights; see position_embedding.h.
// Shared by the kernels of all devices: the CPU's are compiled once for each instruction set, so all of it is internal.
#pragma once

#include <cmath>
#include <cstdint>

namespace siglip2 {
namespace {

// Entries [first, first + count) of an axis with these weights; none of them is 0 at an end.
struct PositionTaps {
  std::int64_t first;
  std::int64_t count;
  const float* weights;
};

// At least the number of taps of any output.
inline std::int64_t most_position_taps(std::int64_t table_size, std::int64_t outputs) {
  const std::int64_t bound = (table_size > outputs ? 2 * table_size / outputs : 2) + 2;
  return bound < table_size ? bound : table_size;
}

// `weights` holds most_position_taps floats.
inline PositionTaps position_taps(std::int64_t table_size, std::int64_t outputs, std::int64_t index, float* weights) {
  const double step = static_cast<double>(table_size) / static_cast<double>(outputs);
  const double support = step > 1.0 ? step : 1.0;
  const double centre = (static_cast<double>(index) + 0.5) * step;
  const double low = std::floor(centre - support + 0.5), high = std::floor(centre + support + 0.5);
  std::int64_t first = low > 0 ? static_cast<std::int64_t>(low) : 0;
  std::int64_t last = high < static_cast<double>(table_size) ? static_cast<std::int64_t>(high) : table_size;
  const auto weight = [&](std::int64_t j) {
    const double value = 1.0 - std::fabs(static_cast<double>(j) + 0.5 - centre) / support;
    return value > 0 ? value : 0.0;
  };
  while (first + 1 < last && weight(first) == 0)
    ++first;
  while (first + 1 < last && weight(last - 1) == 0)
    --last;
  double sum = 0;
  for (std::int64_t j = first; j < last; ++j)
    sum += weight(j);
  for (std::int64_t j = first; j < last; ++j)
    weights[j - first] = static_cast<float>(weight(j) / sum);
  return {first, last - first, weights};
}

}  // namespace
}  // namespace siglip2
