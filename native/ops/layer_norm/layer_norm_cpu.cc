// Layer normalisation on CPUs.
//
// Plan: one row after the other (layer_norm_row.h), shared out in chunks of some 64 KB.
//
// The gradient takes kSumRows rows at a time and keeps each one's mean and scale. A second walk over them, while they
// are in the L2 cache, sums the parameters' gradients down the columns, kColumnVectors vectors at a time. The sums of
// the blocks are added up in order in the end: the error grows with their number and not with that of the rows.
//
// Floor: one read and one write of the rows; the gradient reads input and grad_output and writes grad_input.
#include "ops/layer_norm/layer_norm.h"

#include "cpu/kernels.h"
#include "cpu/memory.h"
#include "cpu/thread_pool.h"
#include "ops/layer_norm/layer_norm_row.h"

namespace siglip2::SIGLIP2_ISA {
namespace {

constexpr std::int64_t kChunkElements = 16384;
constexpr int kColumnVectors = 64 / kLanes;
constexpr std::int64_t kSumRows = 64;

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

// Sums of kVectors vectors of the parameters' gradients from `column` on, the last with `lanes` lanes, over the rows
// [first, last) to `sums`, that of the weight at `column` and that of the bias a width behind.
template <int kVectors>
void sum_parameter_gradients(const LayerNormBackwardArgs& args, std::int64_t first, std::int64_t last,
                             std::int64_t column, int lanes, float* sums) {
  const auto lanes_of = [=](int v) { return v + 1 < kVectors ? kLanes : lanes; };
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
    store_up_to(sums + column + v * kLanes, weight_sums[v], lanes_of(v));
    store_up_to(sums + args.input.columns + column + v * kLanes, bias_sums[v], lanes_of(v));
  }
}

// The same of all columns.
void sum_parameter_gradients(const LayerNormBackwardArgs& args, std::int64_t first, std::int64_t last, float* sums) {
  const std::int64_t width = args.input.columns;
  std::int64_t column = 0;
  for (; column + kColumnVectors * kLanes <= width; column += kColumnVectors * kLanes)
    sum_parameter_gradients<kColumnVectors>(args, first, last, column, kLanes, sums);
  for_each_vector(width - column, [&](std::int64_t i, int lanes) {
    sum_parameter_gradients<1>(args, first, last, column + i, lanes, sums);
  });
}

}  // namespace

void layer_norm_cpu(OpContext& context, const LayerNormArgs& args) {
  const std::int64_t rows = args.input.rows;
  const std::int64_t chunk = kChunkElements / args.input.columns + 1;
  cpu::parallel_for((rows + chunk - 1) / chunk, context.threads, [&](std::int64_t index, int) {
    const std::int64_t last = (index + 1) * chunk < rows ? (index + 1) * chunk : rows;
    const auto normalize = [&](auto* output) {
      for (std::int64_t row = index * chunk; row < last; ++row)
        normalize_row(args.input.as<float>() + row * args.input.stride, args.weight, args.bias, args.epsilon,
                      args.input.columns, output + row * args.output.stride);
    };
    args.output.dtype == DType::kBFloat16 ? normalize(args.output.as<BFloat16>()) : normalize(args.output.as<float>());
  });
}

void layer_norm_backward_cpu(OpContext& context, const LayerNormBackwardArgs& args) {
  const std::int64_t rows = args.input.rows, width = args.input.columns;
  const std::int64_t blocks = (rows + kSumRows - 1) / kSumRows;
  const bool summing = args.grad_weight != nullptr;
  // A 32nd of the input.
  const auto sums_bytes = static_cast<std::size_t>(blocks * 2 * width) * sizeof(float);
  float* const block_sums = summing ? static_cast<float*>(cpu::thread_scratch(sums_bytes)) : nullptr;
  cpu::parallel_for(blocks, context.threads, [&](std::int64_t index, int) {
    const std::int64_t first = index * kSumRows, last = first + kSumRows < rows ? first + kSumRows : rows;
    for (std::int64_t row = first; row < last; ++row)
      backward_row(args, row);
    if (summing) sum_parameter_gradients(args, first, last, block_sums + index * 2 * width);
  });
  for (std::int64_t index = 0; summing && index < blocks; ++index) {
    add_scaled(1.0f, block_sums + index * 2 * width, width, args.grad_weight);
    add_scaled(1.0f, block_sums + index * 2 * width + width, width, args.grad_bias);
  }
}

}  // namespace siglip2::SIGLIP2_ISA
