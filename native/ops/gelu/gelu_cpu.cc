// GELU on CPUs.
//
// Plan: vectors along each row, rows in chunks of some 64 KB for the threads; see cpu/simd/simd_math.h for the
// function.
//
// Floor: one read and one write, about 45 vector operations and a division for kLanes elements; the gradient two reads
// and one write, about 30 and a division.
#include "ops/gelu/gelu.h"

#include "cpu/kernels.h"
#include "cpu/thread_pool.h"
#include "ops/gelu/gelu_row.h"

namespace siglip2::SIGLIP2_ISA {
namespace {

constexpr std::int64_t kChunkElements = 16384;

void gelu_backward_row(const float* input, const float* grad_output, float* grad_input, std::int64_t columns) {
  std::int64_t i = 0;
  for (; i + kLanes <= columns; i += kLanes)
    store(grad_input + i, load(grad_output + i) * gelu_tanh_derivative(load(input + i)));
  if (i < columns) {
    const int rest = static_cast<int>(columns - i);
    store_first(grad_input + i, load_first(grad_output + i, rest) * gelu_tanh_derivative(load_first(input + i, rest)),
                rest);
  }
}

}  // namespace

void gelu_cpu(OpContext& context, const GeluArgs& args) {
  const std::int64_t rows = args.input.rows;
  const std::int64_t chunk = kChunkElements / args.input.columns + 1;
  cpu::parallel_for((rows + chunk - 1) / chunk, context.threads, [&](std::int64_t index, int) {
    const std::int64_t last = (index + 1) * chunk < rows ? (index + 1) * chunk : rows;
    for (std::int64_t row = index * chunk; row < last; ++row) {
      gelu_row(args.input.as<float>() + row * args.input.stride, args.output.as<float>() + row * args.output.stride,
               args.input.columns, [](Vec x) __attribute__((always_inline)) { return gelu_tanh(x); });
    }
  });
}

void gelu_backward_cpu(OpContext& context, const GeluBackwardArgs& args) {
  const std::int64_t rows = args.input.rows;
  const std::int64_t chunk = kChunkElements / args.input.columns + 1;
  cpu::parallel_for((rows + chunk - 1) / chunk, context.threads, [&](std::int64_t index, int) {
    const std::int64_t last = (index + 1) * chunk < rows ? (index + 1) * chunk : rows;
    for (std::int64_t row = index * chunk; row < last; ++row) {
      gelu_backward_row(args.input.as<float>() + row * args.input.stride,
                        args.grad_output.as<float>() + row * args.grad_output.stride,
                        args.grad_input.as<float>() + row * args.grad_input.stride, args.input.columns);
    }
  });
}

}  // namespace siglip2::SIGLIP2_ISA
