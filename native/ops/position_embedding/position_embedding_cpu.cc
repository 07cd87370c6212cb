// Resized position embeddings on CPUs.
//
// Plan: a task is one row of one image's grid. It blends the table's rows that the row draws on into one row of entries
// in scratch (table_columns × width floats, L2), and then, token by token, the entries that the column draws on, adding
// them to the token. Filter weights are recomputed by every task: a few divisions against thousands of multiply-adds.
//
// Floor: one read and one write of the tokens; per token and feature, two multiply-adds when the table is enlarged.
#include "ops/position_embedding/position_embedding.h"

#include <cmath>

#include "cpu/kernels.h"
#include "cpu/simd/simd.h"
#include "cpu/thread_pool.h"

namespace siglip2::SIGLIP2_ISA {
namespace {

// Entries [first, first + count) of an axis with these weights; none of them is 0 at an end.
struct Taps {
  std::int64_t first;
  std::int64_t count;
  const float* weights;
};

// `weights` holds table_size floats.
Taps taps_of(std::int64_t table_size, std::int64_t outputs, std::int64_t index, float* weights) {
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

// Σ over taps of weight · entries[tap · stride + i], for i in [0, count); stored, or added to what is there.
template <bool kAdd>
void blend(const float* entries, std::int64_t stride, const Taps& taps, float* output, std::int64_t count) {
  for (std::int64_t i = 0; i < count; i += kLanes) {
    const int lanes = static_cast<int>(count - i < kLanes ? count - i : kLanes);
    const auto read = [lanes](const float* source) {
      return lanes == kLanes ? load(source) : load_first(source, lanes);
    };
    const float* const source = entries + taps.first * stride + i;
    Vec sum = read(source) * broadcast(taps.weights[0]);
    for (std::int64_t tap = 1; tap < taps.count; ++tap) {
      sum = multiply_add(read(source + tap * stride), broadcast(taps.weights[tap]), sum);
    }
    if (kAdd) sum = read(output + i) + sum;
    if (lanes == kLanes) {
      store(output + i, sum);
    } else {
      store_first(output + i, sum, lanes);
    }
  }
}

}  // namespace

void position_embedding_cpu(OpContext& context, const PositionEmbeddingArgs& args) {
  const std::int64_t width = args.tokens.columns;
  const std::int64_t longest = args.table_rows > args.table_columns ? args.table_rows : args.table_columns;
  const std::size_t scratch_bytes = static_cast<std::size_t>(longest + args.table_columns * width) * sizeof(float);
  std::int64_t grid_rows = 0;
  for (std::int64_t image = 0; image < args.images; ++image)
    grid_rows += args.spatial_shapes[2 * image];

  cpu::parallel_for(grid_rows, context.threads, [&](std::int64_t index, int worker) {
    std::int64_t image = 0, first_token = 0;
    while (index >= args.spatial_shapes[2 * image]) {
      index -= args.spatial_shapes[2 * image];
      first_token += static_cast<std::int64_t>(args.spatial_shapes[2 * image]) * args.spatial_shapes[2 * image + 1];
      ++image;
    }
    const std::int64_t rows = args.spatial_shapes[2 * image];
    const std::int64_t columns = args.spatial_shapes[2 * image + 1];
    float* const entries = static_cast<float*>(cpu::worker_scratch(worker, scratch_bytes));
    float* const weights = entries + args.table_columns * width;

    const Taps vertical = taps_of(args.table_rows, rows, index, weights);
    blend<false>(args.table, args.table_columns * width, vertical, entries, args.table_columns * width);
    float* token = args.tokens.as<float>() + (first_token + index * columns) * args.tokens.stride;
    for (std::int64_t column = 0; column < columns; ++column, token += args.tokens.stride) {
      const Taps horizontal = taps_of(args.table_columns, columns, column, weights);
      blend<true>(entries, width, horizontal, token, width);
    }
  });
}

}  // namespace siglip2::SIGLIP2_ISA
