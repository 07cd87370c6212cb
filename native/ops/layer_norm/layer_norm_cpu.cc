// Layer normalisation on CPUs.
//
// Plan: one row after the other; its second and third pass (variance, output) find it in the L1 cache. Four partial
// sums a pass hide the latency of an addition and keep the rounding error near that of a pairwise sum. Rows are shared
// out in chunks of some 64 KB.
//
// The gradient does the same and keeps each row's mean and scale. A second walk sums the parameters' gradients down the
// columns, which are shared out in blocks of kColumnVectors vectors: rows in order, in registers for kSumRows of them,
// so that the error grows with the number of such blocks and not of rows.
//
// Floor: one read and one write of the rows; the gradient reads input and grad_output twice and writes grad_input.
#include "ops/layer_norm/layer_norm.h"

#include <cmath>

#include "cpu/kernels.h"
#include "cpu/simd/simd.h"
#include "cpu/thread_pool.h"

namespace siglip2::SIGLIP2_ISA {
namespace {

constexpr std::int64_t kChunkElements = 16384;
constexpr int kColumnVectors = 64 / kLanes;
constexpr std::int64_t kSumRows = 64;

// The first `lanes` values; zero beyond.
SIGLIP2_INLINE Vec load_up_to(const float* source, int lanes) {
  return lanes == kLanes ? load(source) : load_first(source, lanes);
}
SIGLIP2_INLINE void store_up_to(float* target, Vec v, int lanes) {
  if (lanes == kLanes)
    store(target, v);
  else
    store_first(target, v, lanes);
}

// Calls body(i, lanes) for the vectors of a row: kLanes lanes from i on, fewer in the last one.
template <typename Body>
SIGLIP2_INLINE void for_each_vector(std::int64_t width, Body body) {
  std::int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes)
    body(i, kLanes);
  if (i < width) body(i, static_cast<int>(width - i));
}

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
Statistics statistics_of(const float* input, std::int64_t width, float epsilon) {
  const float mean = sum_row(width, [=](std::int64_t i, int lanes) { return load_up_to(input + i, lanes); }) /
                     static_cast<float>(width);
  const Vec means = broadcast(mean);
  const float squares = sum_row(width, [=](std::int64_t i, int lanes) {
    const Vec difference = load_up_to(input + i, lanes) - means;
    return difference * difference;
  });
  return {mean, 1.0f / std::sqrt(squares / static_cast<float>(width) + epsilon)};
}

void normalize_row(const LayerNormArgs& args, std::int64_t row) {
  const std::int64_t width = args.input.columns;
  const float* const input = args.input.as<float>() + row * args.input.stride;
  float* const output = args.output.as<float>() + row * args.output.stride;
  const Statistics statistics = statistics_of(input, width, args.epsilon);
  const Vec mean = broadcast(statistics.mean), scale = broadcast(statistics.scale);
  for_each_vector(width, [&](std::int64_t i, int lanes) {
    const Vec normed = (load_up_to(input + i, lanes) - mean) * scale;
    store_up_to(output + i, multiply_add(normed, load_up_to(args.weight + i, lanes), load_up_to(args.bias + i, lanes)),
                lanes);
  });
}

void backward_row(const LayerNormBackwardArgs& args, std::int64_t row) {
  const std::int64_t width = args.input.columns;
  const float* const input = args.input.as<float>() + row * args.input.stride;
  const float* const grad_output = args.grad_output.as<float>() + row * args.grad_output.stride;
  float* const grad_input = args.grad_input.as<float>() + row * args.grad_input.stride;
  float* const statistics = args.statistics.as<float>() + row * args.statistics.stride;
  const Statistics found = statistics_of(input, width, args.epsilon);
  statistics[0] = found.mean;
  statistics[1] = found.scale;

  const Vec mean = broadcast(found.mean), scale = broadcast(found.scale);
  const auto grad = [=, weight = args.weight](std::int64_t i, int lanes) __attribute__((always_inline)) {
    return load_up_to(grad_output + i, lanes) * load_up_to(weight + i, lanes);
  };
  const auto normed = [=](std::int64_t i, int lanes)
                          __attribute__((always_inline)) { return (load_up_to(input + i, lanes) - mean) * scale; };
  const float count = static_cast<float>(width);
  const Vec mean_grad = broadcast(sum_row(width, grad) / count);
  const Vec mean_product =
      broadcast(sum_row(width, [=](std::int64_t i, int lanes) { return grad(i, lanes) * normed(i, lanes); }) / count);
  for_each_vector(width, [&](std::int64_t i, int lanes) {
    Vec x = (grad(i, lanes) - mean_grad - normed(i, lanes) * mean_product) * scale;
    if (args.accumulate) x = x + load_up_to(grad_input + i, lanes);
    store_up_to(grad_input + i, x, lanes);
  });
}

// Adds the gradients of `kVectors` vectors of weight and bias from `column` on; the last one has `lanes` lanes.
template <int kVectors>
void add_parameter_gradients(const LayerNormBackwardArgs& args, std::int64_t column, int lanes) {
  Vec weight_totals[kVectors], bias_totals[kVectors];
  const auto lanes_of = [=](int v) { return v + 1 < kVectors ? kLanes : lanes; };
  SIGLIP2_UNROLL for (int v = 0; v < kVectors; ++v) {
    weight_totals[v] = load_up_to(args.grad_weight + column + v * kLanes, lanes_of(v));
    bias_totals[v] = load_up_to(args.grad_bias + column + v * kLanes, lanes_of(v));
  }
  for (std::int64_t first = 0; first < args.input.rows; first += kSumRows) {
    const std::int64_t last = first + kSumRows < args.input.rows ? first + kSumRows : args.input.rows;
    Vec weight_sums[kVectors], bias_sums[kVectors];
    SIGLIP2_UNROLL for (int v = 0; v < kVectors; ++v) weight_sums[v] = bias_sums[v] = zero();
    for (std::int64_t row = first; row < last; ++row) {
      const float* const input = args.input.as<float>() + row * args.input.stride + column;
      const float* const grad_output = args.grad_output.as<float>() + row * args.grad_output.stride + column;
      const float* const statistics = args.statistics.as<float>() + row * args.statistics.stride;
      const Vec mean = broadcast(statistics[0]), scale = broadcast(statistics[1]);
      SIGLIP2_UNROLL for (int v = 0; v < kVectors; ++v) {
        const Vec normed = (load_up_to(input + v * kLanes, lanes_of(v)) - mean) * scale;
        const Vec grad = load_up_to(grad_output + v * kLanes, lanes_of(v));
        weight_sums[v] = multiply_add(grad, normed, weight_sums[v]);
        bias_sums[v] = bias_sums[v] + grad;
      }
    }
    SIGLIP2_UNROLL for (int v = 0; v < kVectors; ++v) {
      weight_totals[v] = weight_totals[v] + weight_sums[v];
      bias_totals[v] = bias_totals[v] + bias_sums[v];
    }
  }
  SIGLIP2_UNROLL for (int v = 0; v < kVectors; ++v) {
    store_up_to(args.grad_weight + column + v * kLanes, weight_totals[v], lanes_of(v));
    store_up_to(args.grad_bias + column + v * kLanes, bias_totals[v], lanes_of(v));
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

void layer_norm_backward_cpu(OpContext& context, const LayerNormBackwardArgs& args) {
  const std::int64_t rows = args.input.rows, width = args.input.columns;
  const std::int64_t chunk = kChunkElements / width + 1;
  cpu::parallel_for((rows + chunk - 1) / chunk, context.threads, [&](std::int64_t index, int) {
    const std::int64_t last = (index + 1) * chunk < rows ? (index + 1) * chunk : rows;
    for (std::int64_t row = index * chunk; row < last; ++row)
      backward_row(args, row);
  });
  if (args.grad_weight == nullptr) return;

  constexpr std::int64_t kBlock = kColumnVectors * kLanes;
  cpu::parallel_for((width + kBlock - 1) / kBlock, context.threads, [&](std::int64_t index, int) {
    const std::int64_t first = index * kBlock;
    if (first + kBlock <= width) return add_parameter_gradients<kColumnVectors>(args, first, kLanes);
    for_each_vector(width - first,
                    [&](std::int64_t i, int lanes) { add_parameter_gradients<1>(args, first + i, lanes); });
  });
}

}  // namespace siglip2::SIGLIP2_ISA
