// Changes of element type on GPUs.
//
// Floor: one read and one write at the speed of memory.
//
// Plan: a thread converts eight values, with the widest accesses that the alignment of both matrices allows; rows that
// are not aligned go value by value. Blocks take elements of rows in order, so that a warp's accesses are neighbours.
#include "ops/convert/convert.h"

#include "cuda/dtype_switch.h"
#include "cuda/kernels.h"
#include "cuda/prim/bounds.h"
#include "cuda/prim/launch.h"
#include "cuda/prim/vector.h"

namespace siglip2::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kValues = 8;  // of one thread

// Two accesses of 16 bytes for float32, one for bfloat16.
template <typename T>
inline constexpr int kAccess = sizeof(T) == 4 ? 4 : 8;

template <typename In, typename Out, bool kAligned>
__global__ void __launch_bounds__(kThreads)
    convert_kernel(const In* input, std::int64_t input_stride, Out* output, std::int64_t output_stride,
                   std::int64_t columns, std::int64_t groups_per_row, std::int64_t groups) {
  const std::int64_t group = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (!in_bounds(group < groups)) return;
  const std::int64_t row = group / groups_per_row;
  const std::int64_t first = group % groups_per_row * kValues;
  const In* const from = input + row * input_stride + first;
  Out* const to = output + row * output_stride + first;
  if (kAligned && in_bounds(first + kValues <= columns)) {
    float values[kValues];
#pragma unroll
    for (int i = 0; i < kValues; i += kAccess<In>) {
      const auto part = load_vector<kAccess<In>>(from + i);
#pragma unroll
      for (int j = 0; j < kAccess<In>; ++j)
        values[i + j] = to_float(part[j]);
    }
#pragma unroll
    for (int i = 0; i < kValues; i += kAccess<Out>) {
      Vector<Out, kAccess<Out>> part;
#pragma unroll
      for (int j = 0; j < kAccess<Out>; ++j)
        part[j] = from_float<Out>(values[i + j]);
      store_vector(to + i, part);
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kValues; ++i) {
    if (in_bounds(first + i < columns)) to[i] = from_float<Out>(to_float(from[i]));
  }
}

template <typename In, typename Out>
void start(OpContext& context, const ConvertArgs& args) {
  const std::int64_t groups_per_row = (args.input.columns + kValues - 1) / kValues;
  const std::int64_t groups = groups_per_row * args.input.rows;
  const bool aligned = rows_aligned(args.input.data, args.input.stride, sizeof(In)) &&
                       rows_aligned(args.output.data, args.output.stride, sizeof(Out));
  launch(context, "convert", aligned ? convert_kernel<In, Out, true> : convert_kernel<In, Out, false>,
         {(groups + kThreads - 1) / kThreads, kThreads}, {reads(args.input), writes(args.output)}, args.input.as<In>(),
         args.input.stride, args.output.as<Out>(), args.output.stride, args.input.columns, groups_per_row, groups);
}

}  // namespace

void convert_cuda(OpContext& context, const ConvertArgs& args) {
  with_activation_type(args.input.dtype, [&](auto in) {
    with_activation_type(args.output.dtype, [&](auto out) { start<decltype(in), decltype(out)>(context, args); });
  });
}

}  // namespace siglip2::cuda
