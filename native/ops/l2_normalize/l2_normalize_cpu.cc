// Unit rows on CPUs.
//
// Plan: the squares of a row are summed in double precision, in eight partial sums that the compiler keeps in vectors,
// and the row, then in the L1 cache, is scaled in double precision too, so that tiny and huge rows lose nothing.
//
// The gradient takes its two sums the same way.
//
// Floor: one read and one write; the gradient two reads and one write.
#include "ops/l2_normalize/l2_normalize.h"

#include <cmath>
#include <cstring>

#include "cpu/kernels.h"
#include "cpu/thread_pool.h"

namespace siglip2::SIGLIP2_ISA {
namespace {

constexpr std::int64_t kChunkElements = 16384;
constexpr int kSums = 8;

// Σ aᵢbᵢ in double precision.
double dot(const float* a, const float* b, std::int64_t width) {
  double sums[kSums] = {};
  std::int64_t i = 0;
  for (; i + kSums <= width; i += kSums) {
    for (int j = 0; j < kSums; ++j)
      sums[j] += static_cast<double>(a[i + j]) * static_cast<double>(b[i + j]);
  }
  for (; i < width; ++i)
    sums[0] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  double sum = 0;
  for (int j = 0; j < kSums; ++j)
    sum += sums[j];
  return sum;
}

void normalize_row(const float* input, float* output, std::int64_t width) {
  const double squares = dot(input, input, width);
  const double scale = squares == 0 ? 1.0 : 1.0 / std::sqrt(squares);
  for (std::int64_t i = 0; i < width; ++i)
    output[i] = static_cast<float>(static_cast<double>(input[i]) * scale);
}

void normalize_backward_row(const float* input, const float* grad_output, float* grad_input, std::int64_t width) {
  const double squares = dot(input, input, width);
  if (squares == 0) {
    std::memset(grad_input, 0, static_cast<std::size_t>(width) * sizeof(float));
    return;
  }
  const double factor = dot(grad_output, input, width) / squares;
  const double scale = 1.0 / std::sqrt(squares);
  for (std::int64_t i = 0; i < width; ++i) {
    const double along = factor * static_cast<double>(input[i]);
    grad_input[i] = static_cast<float>((static_cast<double>(grad_output[i]) - along) * scale);
  }
}

}  // namespace

void l2_normalize_cpu(OpContext& context, const L2NormalizeArgs& args) {
  const std::int64_t rows = args.input.rows;
  const std::int64_t chunk = kChunkElements / args.input.columns + 1;
  cpu::parallel_for((rows + chunk - 1) / chunk, context.threads, [&](std::int64_t index, int) {
    const std::int64_t last = (index + 1) * chunk < rows ? (index + 1) * chunk : rows;
    for (std::int64_t row = index * chunk; row < last; ++row) {
      normalize_row(args.input.as<float>() + row * args.input.stride,
                    args.output.as<float>() + row * args.output.stride, args.input.columns);
    }
  });
}

void l2_normalize_backward_cpu(OpContext& context, const L2NormalizeBackwardArgs& args) {
  const std::int64_t rows = args.input.rows;
  const std::int64_t chunk = kChunkElements / args.input.columns + 1;
  cpu::parallel_for((rows + chunk - 1) / chunk, context.threads, [&](std::int64_t index, int) {
    const std::int64_t last = (index + 1) * chunk < rows ? (index + 1) * chunk : rows;
    for (std::int64_t row = index * chunk; row < last; ++row) {
      normalize_backward_row(args.input.as<float>() + row * args.input.stride,
                             args.grad_output.as<float>() + row * args.grad_output.stride,
                             args.grad_input.as<float>() + row * args.grad_input.stride, args.input.columns);
    }
  });
}

}  // namespace siglip2::SIGLIP2_ISA
