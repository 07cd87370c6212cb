// The oracle: every output position as the double sum over its taps, in double precision.
#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/position_embedding/position_embedding.h"

namespace siglip2 {
namespace {

struct Taps {
  std::int64_t first;
  std::vector<double> weights;
};

Taps taps_of(std::int64_t table_size, std::int64_t outputs, std::int64_t index) {
  const double step = static_cast<double>(table_size) / static_cast<double>(outputs);
  const double support = std::max(step, 1.0);
  const double centre = (static_cast<double>(index) + 0.5) * step;
  Taps taps;
  taps.first = std::max<std::int64_t>(0, static_cast<std::int64_t>(std::floor(centre - support + 0.5)));
  const auto last = std::min<std::int64_t>(table_size, static_cast<std::int64_t>(std::floor(centre + support + 0.5)));
  double sum = 0;
  for (std::int64_t j = taps.first; j < last; ++j) {
    taps.weights.push_back(std::max(0.0, 1.0 - std::abs(static_cast<double>(j) + 0.5 - centre) / support));
    sum += taps.weights.back();
  }
  for (double& weight : taps.weights)
    weight /= sum;
  return taps;
}

}  // namespace

void position_embedding_reference(OpContext& context, const PositionEmbeddingArgs& args) {
  const std::int64_t width = args.tokens.columns;
  float* token = args.tokens.as<float>();
  for (std::int64_t image = 0; image < args.images; ++image) {
    const std::int64_t rows = args.spatial_shapes[2 * image];
    const std::int64_t columns = args.spatial_shapes[2 * image + 1];
    for (std::int64_t row = 0; row < rows; ++row) {
      const Taps vertical = taps_of(args.table_rows, rows, row);
      for (std::int64_t column = 0; column < columns; ++column) {
        const Taps horizontal = taps_of(args.table_columns, columns, column);
        for (std::int64_t i = 0; i < width; ++i) {
          double sum = 0;
          for (std::size_t y = 0; y < vertical.weights.size(); ++y) {
            for (std::size_t x = 0; x < horizontal.weights.size(); ++x) {
              const std::int64_t entry = (vertical.first + static_cast<std::int64_t>(y)) * args.table_columns +
                                         horizontal.first + static_cast<std::int64_t>(x);
              sum += vertical.weights[y] * horizontal.weights[x] * args.table[entry * width + i];
            }
          }
          token[i] = static_cast<float>(token[i] + sum);
        }
        token += args.tokens.stride;
      }
    }
  }
}

void position_embedding_backward_reference(OpContext& context, const PositionEmbeddingBackwardArgs& args) {
  const std::int64_t width = args.grad_tokens.columns;
  const std::int64_t entries = args.table_rows * args.table_columns;
  std::vector<double> sums(args.grad_table, args.grad_table + entries * width);
  const float* token = args.grad_tokens.as<float>();
  for (std::int64_t image = 0; image < args.images; ++image) {
    const std::int64_t rows = args.spatial_shapes[2 * image];
    const std::int64_t columns = args.spatial_shapes[2 * image + 1];
    for (std::int64_t row = 0; row < rows; ++row) {
      const Taps vertical = taps_of(args.table_rows, rows, row);
      for (std::int64_t column = 0; column < columns; ++column, token += args.grad_tokens.stride) {
        const Taps horizontal = taps_of(args.table_columns, columns, column);
        for (std::size_t y = 0; y < vertical.weights.size(); ++y) {
          for (std::size_t x = 0; x < horizontal.weights.size(); ++x) {
            const std::int64_t entry = (vertical.first + static_cast<std::int64_t>(y)) * args.table_columns +
                                       horizontal.first + static_cast<std::int64_t>(x);
            for (std::int64_t i = 0; i < width; ++i)
              sums[static_cast<std::size_t>(entry * width + i)] +=
                  vertical.weights[y] * horizontal.weights[x] * token[i];
          }
        }
      }
    }
  }
  for (std::size_t i = 0; i < sums.size(); ++i)
    args.grad_table[i] = static_cast<float>(sums[i]);
}

}  // namespace siglip2
