// GELU on GPUs, where no matrix product could take it along.
//
// Floor: memory. One read and one write, 8 bytes an element in float32 and 4 in bfloat16; the gradient two reads and
// one write. The exact function takes some 30 operations, at the speed of an H100's memory half of what it can do; the
// one for bfloat16 takes 6 and two of the special function unit, a half of its speed.
//
// Plan: a thread takes eight neighbouring values with accesses of 16 bytes, threads take groups of eight in the order
// of rows. Matrices that are not aligned go value by value, a warp's accesses being neighbours.
#include "ops/gelu/gelu.h"

#include "cuda/activations.h"
#include "cuda/dtype_switch.h"
#include "cuda/gelu_tanh.cuh"
#include "cuda/kernels.h"
#include "cuda/prim/bounds.h"
#include "cuda/prim/launch.h"

namespace siglip2::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kValues = 8;  // of one thread

// One of both functions: grad_output is null for the forward pass. `input` may be `output`, and so may `grad_output`.
template <typename T>
struct Elements {
  const T* input;
  std::int64_t input_stride;
  const T* grad_output;
  std::int64_t grad_output_stride;
  T* output;
  std::int64_t output_stride;
  std::int64_t groups_per_row;
  std::int64_t groups;
};

template <bool kGradient, typename T>
__device__ __forceinline__ float apply(float z, float grad) {
  constexpr bool kFast = sizeof(T) == 2;
  if constexpr (kGradient) return grad * gelu_tanh_derivative<kFast>(z);
  return gelu_tanh<kFast>(z);
}

template <typename T, bool kGradient>
__global__ void __launch_bounds__(kThreads) gelu_vector_kernel(Elements<T> args) {
  const std::int64_t group = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (!in_bounds(group < args.groups)) return;
  const std::int64_t row = group / args.groups_per_row, column = group % args.groups_per_row * kValues;
  float values[kValues], grad[kValues] = {};
  load_floats(args.input + row * args.input_stride + column, values);
  if constexpr (kGradient) load_floats(args.grad_output + row * args.grad_output_stride + column, grad);
#pragma unroll
  for (int i = 0; i < kValues; ++i)
    values[i] = apply<kGradient, T>(values[i], grad[i]);
  store_floats(args.output + row * args.output_stride + column, values);
}

// A group is one value here.
template <typename T, bool kGradient>
__global__ void __launch_bounds__(kThreads) gelu_any_kernel(Elements<T> args) {
  const std::int64_t group = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (!in_bounds(group < args.groups)) return;
  const std::int64_t row = group / args.groups_per_row, column = group % args.groups_per_row;
  float grad = 0;
  if constexpr (kGradient) grad = to_float(args.grad_output[row * args.grad_output_stride + column]);
  const float z = to_float(args.input[row * args.input_stride + column]);
  args.output[row * args.output_stride + column] = from_float<T>(apply<kGradient, T>(z, grad));
}

template <typename T, bool kGradient>
void start(OpContext& context, const ConstMatrixView& input, const ConstMatrixView& grad_output,
           const MatrixView& output) {
  const bool vectors = rows_aligned(input.data, input.stride, sizeof(T)) &&
                       rows_aligned(output.data, output.stride, sizeof(T)) &&
                       rows_aligned(grad_output.data, grad_output.stride, sizeof(T)) && input.columns % kValues == 0;
  const std::int64_t groups_per_row = input.columns / (vectors ? kValues : 1);
  const std::int64_t groups = groups_per_row * input.rows;
  const Elements<T> args = {input.as<T>(),  input.stride,  grad_output.as<T>(), grad_output.stride,
                            output.as<T>(), output.stride, groups_per_row,      groups};
  launch(context, kGradient ? "gelu_backward" : "gelu",
         vectors ? gelu_vector_kernel<T, kGradient> : gelu_any_kernel<T, kGradient>,
         {(groups + kThreads - 1) / kThreads, kThreads}, {reads(input), reads(grad_output), writes(output)}, args);
}

}  // namespace

void gelu_cuda(OpContext& context, const GeluArgs& args) {
  with_activation_type(args.input.dtype,
                       [&](auto type) { start<decltype(type), false>(context, args.input, {}, args.output); });
}

void gelu_backward_cuda(OpContext& context, const GeluBackwardArgs& args) {
  with_activation_type(args.input.dtype, [&](auto type) {
    start<decltype(type), true>(context, args.input, args.grad_output, args.grad_input);
  });
}

}  // namespace siglip2::cuda
