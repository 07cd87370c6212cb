// Layer normalisation on CPUs.
//
// Plan: one row after the other; its second and third pass (variance, output) find it in the L1 cache. Four partial
// sums a pass hide the latency of an addition and keep the rounding error near that of a pairwise sum. Rows are shared
// out in chunks of some 64 KB.
//
// Floor: one read and one write of the rows.
#include "ops/layer_norm/layer_norm.h"

#include <cmath>

#include "cpu/kernels.h"
#include "cpu/simd/simd.h"
#include "cpu/thread_pool.h"

namespace siglip2::SIGLIP2_ISA {
namespace {

constexpr std::int64_t kChunkElements = 16384;

// Σ term(xᵢ); `term` maps a vector to a vector and must give 0 in lanes beyond `width`.
template <typename Term>
SIGLIP2_INLINE float sum_row(const float* row, std::int64_t width, Term term) {
  Vec sums[4] = {zero(), zero(), zero(), zero()};
  std::int64_t i = 0;
  for (; i + 4 * kLanes <= width; i += 4 * kLanes) {
    for (int v = 0; v < 4; ++v)
      sums[v] = sums[v] + term(load(row + i + v * kLanes));
  }
  for (; i + kLanes <= width; i += kLanes)
    sums[0] = sums[0] + term(load(row + i));
  if (i < width) {
    const int rest = static_cast<int>(width - i);
    sums[1] = sums[1] + select_first(rest, term(load_first(row + i, rest)), zero());
  }
  return reduce_add((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

void normalize_row(const LayerNormArgs& args, std::int64_t row) {
  const std::int64_t width = args.input.columns;
  const float* const input = args.input.as<float>() + row * args.input.stride;
  float* const output = args.output.as<float>() + row * args.output.stride;

  const float mean = sum_row(input, width, [](Vec x) { return x; }) / static_cast<float>(width);
  const Vec means = broadcast(mean);
  const float squares = sum_row(input, width, [means](Vec x) { return (x - means) * (x - means); });
  const Vec scale = broadcast(1.0f / std::sqrt(squares / static_cast<float>(width) + args.epsilon));

  std::int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    const Vec normed = (load(input + i) - means) * scale;
    store(output + i, multiply_add(normed, load(args.weight + i), load(args.bias + i)));
  }
  if (i < width) {
    const int rest = static_cast<int>(width - i);
    const Vec normed = (load_first(input + i, rest) - means) * scale;
    store_first(output + i, multiply_add(normed, load_first(args.weight + i, rest), load_first(args.bias + i, rest)),
                rest);
  }
}

}  // namespace

void layer_norm_cpu(OpContext& context, const LayerNormArgs& args) {
  const std::int64_t rows = args.input.rows;
  const std::int64_t chunk = kChunkElements / args.input.columns + 1;
  cpu::parallel_for((rows + chunk - 1) / chunk, context.threads, [&](std::int64_t index, int) {
    const std::int64_t last = (index + 1) * chunk < rows ? (index + 1) * chunk : rows;
    for (std::int64_t row = index * chunk; row < last; ++row)
      normalize_row(args, row);
  });
}

}  // namespace siglip2::SIGLIP2_ISA
