// Layer normalisation on GPUs.
//
// Floor: memory. One read and one write of the rows, 8 bytes an element in float32 and 4 in bfloat16; some 10
// operations an element.
//
// Plan: a warp takes a row and keeps it in registers, at most 48 values a lane, so that both passes over it (mean, then
// variance) and the output cost one read of memory. A lane's accesses are 16 bytes, a warp's 512 in a row. With 3 to 12
// of them in flight a lane, the 20 or more warps that fit a multiprocessor keep more bytes under way than its share of
// the memory's latency needs. Weight and bias come from the L1 cache. Nothing is exchanged between warps.
//
// Rows that are wider, not aligned or not whole vectors are taken by a block each, value by value; they are read again
// from the caches for each pass.
//
// The gradient is in layer_norm_backward.cuh.
#include "ops/layer_norm/layer_norm.h"

#include "cuda/activations.h"
#include "cuda/block_reduce.h"
#include "cuda/dtype_switch.h"
#include "cuda/kernels.h"
#include "cuda/prim/bounds.h"
#include "cuda/prim/launch.h"
#include "cuda/prim/shared_memory.h"
#include "ops/layer_norm/layer_norm_backward.cuh"

namespace siglip2::cuda {
namespace {

constexpr int kRowWarps = 4;
constexpr int kAnyThreads = 256;

template <typename T, int kVectors>
__global__ void __launch_bounds__(kRowWarps* kWarpSize)
    layer_norm_row_kernel(const T* input, std::int64_t input_stride, const float* weight, const float* bias,
                          float epsilon, T* output, std::int64_t output_stride, std::int64_t rows, int width) {
  constexpr int kValues = kWidest<T>;
  const std::int64_t row = std::int64_t{blockIdx.x} * kRowWarps + warp_index();
  if (!in_bounds(row < rows)) return;
  const auto column_of = [](int v) { return (v * kWarpSize + lane_index()) * kValues; };

  float x[kVectors][kValues];
  float sum = 0;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
#pragma unroll
    for (int i = 0; i < kValues; ++i)
      x[v][i] = 0;
    if (in_bounds(column_of(v) < width)) load_floats(input + row * input_stride + column_of(v), x[v]);
  }
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
#pragma unroll
    for (int i = 0; i < kValues; ++i)
      sum += x[v][i];
  }
  const float mean = warp_sum(sum) / static_cast<float>(width);

  // The mean is rounded to the digits of the values; `rest` is what it is off by, in the digits of the differences.
  float differences = 0, squares = 0;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
#pragma unroll
    for (int i = 0; i < kValues; ++i) {
      x[v][i] = in_bounds(column_of(v) < width) ? x[v][i] - mean : 0.0f;
      differences += x[v][i];
      squares += x[v][i] * x[v][i];
    }
  }
  const float rest = warp_sum(differences) / static_cast<float>(width);
  const float scale = 1.0f / sqrtf(warp_sum(squares) / static_cast<float>(width) - rest * rest + epsilon);

#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    if (in_bounds(column_of(v) < width)) {
      float weights[kValues], biases[kValues];
      load_floats(weight + column_of(v), weights);
      load_floats(bias + column_of(v), biases);
#pragma unroll
      for (int i = 0; i < kValues; ++i)
        x[v][i] = (x[v][i] - rest) * scale * weights[i] + biases[i];
      store_floats(output + row * output_stride + column_of(v), x[v]);
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kAnyThreads)
    layer_norm_any_kernel(const T* input, std::int64_t input_stride, const float* weight, const float* bias,
                          float epsilon, T* output, std::int64_t output_stride, std::int64_t width) {
  float* const shared = reinterpret_cast<float*>(shared_memory());
  const T* const from = input + std::int64_t{blockIdx.x} * input_stride;
  T* const to = output + std::int64_t{blockIdx.x} * output_stride;
  const RowStatistics statistics = row_statistics(from, width, epsilon, shared);
  for (std::int64_t i = threadIdx.x; i < width; i += kAnyThreads)
    to[i] = from_float<T>(statistics.normalize(to_float(from[i])) * weight[i] + bias[i]);
}

template <typename T, int kVectors>
void start_rows(OpContext& context, const LayerNormArgs& args) {
  const std::int64_t rows = args.input.rows, width = args.input.columns;
  launch(context, "layer_norm", layer_norm_row_kernel<T, kVectors>,
         {(rows + kRowWarps - 1) / kRowWarps, kRowWarps * kWarpSize},
         {reads(args.input), reads(args.weight, width), reads(args.bias, width), writes(args.output)},
         args.input.as<T>(), args.input.stride, args.weight, args.bias, args.epsilon, args.output.as<T>(),
         args.output.stride, rows, static_cast<int>(width));
}

// Vectors of a lane that hold a row of So400m, of Base and of giant; what else fits takes the next larger.
template <typename T>
void start(OpContext& context, const LayerNormArgs& args) {
  constexpr int kPerVector = kWarpSize * kWidest<T>;
  constexpr int kSmall = 768 / kPerVector, kMedium = (1152 + kPerVector - 1) / kPerVector, kLarge = 1536 / kPerVector;
  const std::int64_t width = args.input.columns;
  const bool vectors = rows_aligned(args.input.data, args.input.stride, sizeof(T)) &&
                       rows_aligned(args.output.data, args.output.stride, sizeof(T)) &&
                       rows_aligned(args.weight, 0, sizeof(float)) && rows_aligned(args.bias, 0, sizeof(float)) &&
                       width % kWidest<T> == 0;
  if (vectors && width <= kSmall * kPerVector) return start_rows<T, kSmall>(context, args);
  if (vectors && width <= kMedium * kPerVector) return start_rows<T, kMedium>(context, args);
  if (vectors && width <= kLarge * kPerVector) return start_rows<T, kLarge>(context, args);
  launch(context, "layer_norm_any", layer_norm_any_kernel<T>,
         {args.input.rows, kAnyThreads, 3 * kAnyThreads / kWarpSize * sizeof(float)},
         {reads(args.input), reads(args.weight, width), reads(args.bias, width), writes(args.output)},
         args.input.as<T>(), args.input.stride, args.weight, args.bias, args.epsilon, args.output.as<T>(),
         args.output.stride, width);
}

}  // namespace

void layer_norm_cuda(OpContext& context, const LayerNormArgs& args) {
  with_activation_type(args.input.dtype, [&](auto type) { start<decltype(type)>(context, args); });
}

void layer_norm_backward_cuda(OpContext& context, const LayerNormBackwardArgs& args) {
  with_activation_type(args.input.dtype, [&](auto type) { start_backward<decltype(type)>(context, args); });
}

}  // namespace siglip2::cuda
