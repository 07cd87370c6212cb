// Unit rows on GPUs.
//
// Floor: memory. One read and one write, the gradient two reads and one write, of [batch, width] embeddings: a few
// hundredths of a millisecond at batch 32768. Sums in double precision take one conversion and one operation an
// element, which data centre chips do fast enough and others at twice the floor's time.
//
// Plan: a warp a row, twice: its sums in double precision, then the output, for which the row comes from the L1 cache.
// A lane takes four neighbouring values at a time where the matrices are aligned, else one.
#include "ops/l2_normalize/l2_normalize.h"

#include "cuda/activations.h"
#include "cuda/dtype_switch.h"
#include "cuda/kernels.h"
#include "cuda/prim/bounds.h"
#include "cuda/prim/launch.h"
#include "cuda/prim/warp.h"

namespace siglip2::cuda {
namespace {

constexpr int kWarps = 4;  // of a block, a row each

template <typename In, typename Out, int kValues>
__global__ void __launch_bounds__(kWarps* kWarpSize)
    l2_normalize_kernel(const In* input, std::int64_t input_stride, Out* output, std::int64_t output_stride,
                        std::int64_t rows, std::int64_t width) {
  const std::int64_t row = std::int64_t{blockIdx.x} * kWarps + warp_index();
  if (!in_bounds(row < rows)) return;
  const In* const from = input + row * input_stride;
  Out* const to = output + row * output_stride;
  double squares = 0;
  for (std::int64_t i = lane_index() * kValues; i < width; i += kWarpSize * kValues) {
    float values[kValues];
    load_floats(from + i, values);
#pragma unroll
    for (int j = 0; j < kValues; ++j)
      squares += static_cast<double>(values[j]) * static_cast<double>(values[j]);
  }
  squares = warp_sum(squares);
  const double scale = squares == 0 ? 1.0 : 1.0 / sqrt(squares);
  for (std::int64_t i = lane_index() * kValues; i < width; i += kWarpSize * kValues) {
    float values[kValues];
    load_floats(from + i, values);
#pragma unroll
    for (int j = 0; j < kValues; ++j)
      values[j] = static_cast<float>(static_cast<double>(values[j]) * scale);
    store_floats(to + i, values);
  }
}

template <typename In, typename GradOut, typename GradIn, int kValues>
// Registers for eight blocks an SM: 32 warps with several loads each under way.
__global__ void __launch_bounds__(kWarps* kWarpSize, 8)
    l2_normalize_backward_kernel(const In* input, std::int64_t input_stride, const GradOut* grad_output,
                                 std::int64_t grad_output_stride, GradIn* grad_input, std::int64_t grad_input_stride,
                                 std::int64_t rows, std::int64_t width) {
  const std::int64_t row = std::int64_t{blockIdx.x} * kWarps + warp_index();
  if (!in_bounds(row < rows)) return;
  const In* const x = input + row * input_stride;
  const GradOut* const from = grad_output + row * grad_output_stride;
  GradIn* const to = grad_input + row * grad_input_stride;
  double squares = 0, product = 0;
  for (std::int64_t i = lane_index() * kValues; i < width; i += kWarpSize * kValues) {
    float values[kValues], grad[kValues];
    load_floats(x + i, values);
    load_floats(from + i, grad);
#pragma unroll
    for (int j = 0; j < kValues; ++j) {
      squares += static_cast<double>(values[j]) * static_cast<double>(values[j]);
      product += static_cast<double>(grad[j]) * static_cast<double>(values[j]);
    }
  }
  squares = warp_sum(squares);
  product = warp_sum(product);
  // The gradient of a row of zeros is 0.
  const double scale = squares == 0 ? 0.0 : 1.0 / sqrt(squares);
  const double factor = squares == 0 ? 0.0 : product / squares;
  for (std::int64_t i = lane_index() * kValues; i < width; i += kWarpSize * kValues) {
    float values[kValues], grad[kValues];
    load_floats(x + i, values);
    load_floats(from + i, grad);
#pragma unroll
    for (int j = 0; j < kValues; ++j) {
      const double across = static_cast<double>(grad[j]) - factor * static_cast<double>(values[j]);
      grad[j] = static_cast<float>(across * scale);
    }
    store_floats(to + i, grad);
  }
}

// Whether four values at a time are aligned accesses.
template <typename T>
bool in_fours(const ConstMatrixView& view) {
  return rows_aligned(view.data, view.stride, sizeof(T), 4 * sizeof(T)) && view.columns % 4 == 0;
}

template <typename In, typename Out>
void start(OpContext& context, const L2NormalizeArgs& args) {
  const std::int64_t rows = args.input.rows;
  const bool fours = in_fours<In>(args.input) && in_fours<Out>(args.output);
  launch(context, "l2_normalize", fours ? l2_normalize_kernel<In, Out, 4> : l2_normalize_kernel<In, Out, 1>,
         {(rows + kWarps - 1) / kWarps, kWarps * kWarpSize}, {reads(args.input), writes(args.output)},
         args.input.as<In>(), args.input.stride, args.output.as<Out>(), args.output.stride, rows, args.input.columns);
}

template <typename In, typename GradOut, typename GradIn>
void start_backward(OpContext& context, const L2NormalizeBackwardArgs& args) {
  const std::int64_t rows = args.input.rows;
  const bool fours =
      in_fours<In>(args.input) && in_fours<GradOut>(args.grad_output) && in_fours<GradIn>(args.grad_input);
  launch(context, "l2_normalize_backward",
         fours ? l2_normalize_backward_kernel<In, GradOut, GradIn, 4>
               : l2_normalize_backward_kernel<In, GradOut, GradIn, 1>,
         {(rows + kWarps - 1) / kWarps, kWarps * kWarpSize},
         {reads(args.input), reads(args.grad_output), writes(args.grad_input)}, args.input.as<In>(), args.input.stride,
         args.grad_output.as<GradOut>(), args.grad_output.stride, args.grad_input.as<GradIn>(), args.grad_input.stride,
         rows, args.input.columns);
}

}  // namespace

void l2_normalize_cuda(OpContext& context, const L2NormalizeArgs& args) {
  with_activation_type(args.input.dtype, [&](auto in) {
    with_activation_type(args.output.dtype, [&](auto out) { start<decltype(in), decltype(out)>(context, args); });
  });
}

void l2_normalize_backward_cuda(OpContext& context, const L2NormalizeBackwardArgs& args) {
  with_activation_type(args.input.dtype, [&](auto in) {
    with_activation_type(args.grad_output.dtype, [&](auto grad_out) {
      with_activation_type(args.grad_input.dtype, [&](auto grad_in) {
        start_backward<decltype(in), decltype(grad_out), decltype(grad_in)>(context, args);
      });
    });
  });
}

}  // namespace siglip2::cuda
