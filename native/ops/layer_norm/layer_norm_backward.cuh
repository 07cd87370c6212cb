// Gradients of layer normalisation on GPUs.
//
// Floor: memory. Two reads and one write of the rows (three reads when accumulating): 12 or 16 bytes an element in
// float32, 6 or 8 in bfloat16; some 25 operations an element.
//
// Plan: everything in one pass over the rows. A block takes neighbouring rows, one after the other; a thread owns eight
// columns of all of them (one access of 16 bytes in bfloat16, two in float32), so that the sums of both parameters'
// gradients stay in registers until the rows are done. Mean, variance and the two means of the gradient are three sums
// over the block a row. Blocks are small (160 threads at width 1152), so a multiprocessor holds several and one loads
// while others wait. Statistics are computed again instead of read: input is needed anyway.
//
// Each block leaves a row of partial sums [2][width]; a second kernel adds them in order. How many there are depends on
// the number of rows alone: at most kMostBlocks, 4 for each multiprocessor of an H100, 7 % of the bytes at 16384 rows.
//
// Rows that are too wide, not aligned or not whole vectors go value by value, with the partial sums in memory.
#pragma once

#include "cuda/activations.h"
#include "cuda/block_reduce.h"
#include "cuda/prim/bounds.h"
#include "cuda/prim/launch.h"
#include "cuda/prim/shared_memory.h"
#include "cuda/scratch.h"
#include "ops/layer_norm/layer_norm.h"

namespace siglip2::cuda {
namespace {

constexpr std::int64_t kMostBlocks = 528;
constexpr int kOwned = 8;             // columns of a thread
constexpr int kMostRowThreads = 512;  // of a block whose threads keep their columns
constexpr int kAnyBackwardThreads = 256;
constexpr int kCombineSlices = 8;

struct RowStatistics {
  float mean;
  float rest;   // what the mean, rounded to the digits of the values, is off by
  float scale;  // 1/√(variance + epsilon)

  __device__ __forceinline__ float normalize(float value) const { return (value - mean - rest) * scale; }
};

// Of a row that is read value by value; `shared` has three values for each warp.
template <typename T>
__device__ __forceinline__ RowStatistics row_statistics(const T* row, std::int64_t width, float epsilon,
                                                        float* shared) {
  const int threads = static_cast<int>(blockDim.x);
  const float count = static_cast<float>(width);
  float sum[1] = {0};
  for (std::int64_t i = threadIdx.x; i < width; i += threads)
    sum[0] += to_float(row[i]);
  block_sum(sum, shared);
  const float mean = sum[0] / count;
  float sums[2] = {0, 0};  // of differences and of their squares
  for (std::int64_t i = threadIdx.x; i < width; i += threads) {
    const float difference = to_float(row[i]) - mean;
    sums[0] += difference;
    sums[1] += difference * difference;
  }
  block_sum(sums, shared + threads / kWarpSize);
  const float rest = sums[0] / count;
  return {mean, rest, 1.0f / sqrtf(sums[1] / count - rest * rest + epsilon)};
}

template <typename T>
struct BackwardRows {
  const T* input;
  std::int64_t input_stride;
  const float* weight;
  float epsilon;
  const T* grad_output;
  std::int64_t grad_output_stride;
  T* grad_input;
  std::int64_t grad_input_stride;
  bool accumulate;
  float* partial_sums;  // [blocks][2][width], of the weight and of the bias; null: not wanted
  std::int64_t rows;
  std::int64_t rows_per_block;
  std::int64_t width;
};

template <typename T>
__global__ void __launch_bounds__(kMostRowThreads, 1) layer_norm_backward_kernel(BackwardRows<T> args) {
  constexpr int kValues = kWidest<T>, kVectors = kOwned / kValues;
  float* const shared = reinterpret_cast<float*>(shared_memory());
  const int threads = static_cast<int>(blockDim.x), warps = threads / kWarpSize;
  const float count = static_cast<float>(args.width);
  const auto column_of = [threads](int v) { return (v * threads + static_cast<int>(threadIdx.x)) * kValues; };

  float weight[kVectors][kValues], weight_sums[kVectors][kValues], bias_sums[kVectors][kValues];
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
#pragma unroll
    for (int i = 0; i < kValues; ++i)
      weight[v][i] = weight_sums[v][i] = bias_sums[v][i] = 0;
    if (in_bounds(column_of(v) < args.width)) load_floats(args.weight + column_of(v), weight[v]);
  }

  const std::int64_t first = std::int64_t{blockIdx.x} * args.rows_per_block;
  const std::int64_t end = first + args.rows_per_block < args.rows ? first + args.rows_per_block : args.rows;
  for (std::int64_t row = first; row < end; ++row) {
    float x[kVectors][kValues], grad[kVectors][kValues];
    float sum[1] = {0};
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
#pragma unroll
      for (int i = 0; i < kValues; ++i)
        x[v][i] = grad[v][i] = 0;
      if (in_bounds(column_of(v) < args.width)) {
        load_floats(args.input + row * args.input_stride + column_of(v), x[v]);
        load_floats(args.grad_output + row * args.grad_output_stride + column_of(v), grad[v]);
      }
#pragma unroll
      for (int i = 0; i < kValues; ++i)
        sum[0] += x[v][i];
    }
    block_sum(sum, shared);
    const float mean = sum[0] / count;

    float spread[2] = {0, 0};  // sums of differences and of their squares
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
#pragma unroll
      for (int i = 0; i < kValues; ++i) {
        x[v][i] = in_bounds(column_of(v) < args.width) ? x[v][i] - mean : 0.0f;
        spread[0] += x[v][i];
        spread[1] += x[v][i] * x[v][i];
      }
    }
    block_sum(spread, shared + warps);
    const float rest = spread[0] / count;
    const float scale = 1.0f / sqrtf(spread[1] / count - rest * rest + args.epsilon);

    float sums[2] = {0, 0};  // of g and of g · x̂
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
#pragma unroll
      for (int i = 0; i < kValues; ++i) {
        x[v][i] = (x[v][i] - rest) * scale;  // beyond the row the gradient is 0
        weight_sums[v][i] += grad[v][i] * x[v][i];
        bias_sums[v][i] += grad[v][i];
        grad[v][i] *= weight[v][i];
        sums[0] += grad[v][i];
        sums[1] += grad[v][i] * x[v][i];
      }
    }
    block_sum(sums, shared + 3 * warps);
    const float mean_grad = sums[0] / count, mean_product = sums[1] / count;

#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      if (in_bounds(column_of(v) < args.width)) {
        T* const target = args.grad_input + row * args.grad_input_stride + column_of(v);
        float old[kValues] = {};
        if (args.accumulate) load_floats(target, old);
#pragma unroll
        for (int i = 0; i < kValues; ++i)
          grad[v][i] = (grad[v][i] - mean_grad - x[v][i] * mean_product) * scale + old[i];
        store_floats(target, grad[v]);
      }
    }
  }

  if (args.partial_sums == nullptr) return;
  float* const partial = args.partial_sums + std::int64_t{blockIdx.x} * 2 * args.width;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    if (in_bounds(column_of(v) < args.width)) {
      store_floats(partial + column_of(v), weight_sums[v]);
      store_floats(partial + args.width + column_of(v), bias_sums[v]);
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kAnyBackwardThreads) layer_norm_backward_any_kernel(BackwardRows<T> args) {
  constexpr int kWarps = kAnyBackwardThreads / kWarpSize;
  float* const shared = reinterpret_cast<float*>(shared_memory());
  const float count = static_cast<float>(args.width);
  float* const partial = args.partial_sums + std::int64_t{blockIdx.x} * 2 * args.width;
  const std::int64_t first = std::int64_t{blockIdx.x} * args.rows_per_block;
  const std::int64_t end = first + args.rows_per_block < args.rows ? first + args.rows_per_block : args.rows;
  for (std::int64_t row = first; row < end; ++row) {
    const T* const input = args.input + row * args.input_stride;
    const T* const grad_output = args.grad_output + row * args.grad_output_stride;
    T* const grad_input = args.grad_input + row * args.grad_input_stride;
    const RowStatistics statistics = row_statistics(input, args.width, args.epsilon, shared);
    const auto normed = [&](std::int64_t i) { return statistics.normalize(to_float(input[i])); };
    float sums[2] = {0, 0};
    for (std::int64_t i = threadIdx.x; i < args.width; i += kAnyBackwardThreads) {
      const float grad = to_float(grad_output[i]) * args.weight[i];
      sums[0] += grad;
      sums[1] += grad * normed(i);
    }
    block_sum(sums, shared + 3 * kWarps);
    for (std::int64_t i = threadIdx.x; i < args.width; i += kAnyBackwardThreads) {
      const float grad = to_float(grad_output[i]), x = normed(i);
      const float change = (grad * args.weight[i] - sums[0] / count - x * (sums[1] / count)) * statistics.scale;
      grad_input[i] = from_float<T>(args.accumulate ? change + to_float(grad_input[i]) : change);
      if (args.partial_sums != nullptr) {
        partial[i] = row == first ? grad * x : partial[i] + grad * x;
        partial[args.width + i] = row == first ? grad : partial[args.width + i] + grad;
      }
    }
  }
}

// Adds the partial sums [partials][2][width] to the gradients of weight and bias. A warp reads 32 columns, the slices
// of a block share out the partial sums.
__global__ void __launch_bounds__(kCombineSlices* kWarpSize)
    layer_norm_combine_kernel(const float* partial_sums, std::int64_t partials, std::int64_t width, float* grad_weight,
                              float* grad_bias) {
  float* const shared = reinterpret_cast<float*>(shared_memory());  // [kCombineSlices][32]
  const std::int64_t column = std::int64_t{blockIdx.x} * kWarpSize + lane_index();
  const std::int64_t slice = (partials + kCombineSlices - 1) / kCombineSlices;
  const std::int64_t first = warp_index() * slice;
  const std::int64_t end = first + slice < partials ? first + slice : partials;
  float sum = 0;
  if (in_bounds(column < 2 * width)) {
    for (std::int64_t i = first; i < end; ++i)
      sum += partial_sums[i * 2 * width + column];
  }
  shared[threadIdx.x] = sum;
  block_barrier();
  if (warp_index() == 0 && in_bounds(column < 2 * width)) {
    float* const target = column < width ? grad_weight + column : grad_bias + (column - width);
    for (int i = 1; i < kCombineSlices; ++i)
      sum += shared[i * kWarpSize + lane_index()];
    *target += sum;
  }
}

template <typename T>
void start_backward(OpContext& context, const LayerNormBackwardArgs& args) {
  Scratch scratch(context);
  const std::int64_t rows = args.input.rows, width = args.input.columns;
  const std::int64_t rows_per_block = (rows + kMostBlocks - 1) / kMostBlocks;
  const std::int64_t blocks = (rows + rows_per_block - 1) / rows_per_block;
  float* const partial_sums = args.grad_weight == nullptr ? nullptr : scratch.allocate<float>(blocks * 2 * width);
  const BackwardRows<T> call = {args.input.as<T>(),
                                args.input.stride,
                                args.weight,
                                args.epsilon,
                                args.grad_output.as<T>(),
                                args.grad_output.stride,
                                args.grad_input.as<T>(),
                                args.grad_input.stride,
                                args.accumulate,
                                partial_sums,
                                rows,
                                rows_per_block,
                                width};
  const bool vectors = rows_aligned(args.input.data, args.input.stride, sizeof(T)) &&
                       rows_aligned(args.grad_output.data, args.grad_output.stride, sizeof(T)) &&
                       rows_aligned(args.grad_input.data, args.grad_input.stride, sizeof(T)) &&
                       rows_aligned(args.weight, 0, sizeof(float)) && width % kWidest<T> == 0 &&
                       width <= kMostRowThreads * kOwned;
  const std::int64_t needed = (width + kOwned - 1) / kOwned;
  const int threads =
      vectors ? static_cast<int>((needed + kWarpSize - 1) / kWarpSize * kWarpSize) : kAnyBackwardThreads;
  launch(context, vectors ? "layer_norm_backward" : "layer_norm_backward_any",
         vectors ? layer_norm_backward_kernel<T> : layer_norm_backward_any_kernel<T>,
         {blocks, threads, 5 * static_cast<std::size_t>(threads / kWarpSize) * sizeof(float)},
         {reads(args.input), reads(args.weight, width), reads(args.grad_output), writes(args.grad_input),
          writes(partial_sums, blocks * 2 * width)},
         call);
  if (args.grad_weight == nullptr) return;
  launch(
      context, "layer_norm_combine", layer_norm_combine_kernel,
      {(2 * width + kWarpSize - 1) / kWarpSize, kCombineSlices * kWarpSize, kCombineSlices * kWarpSize * sizeof(float)},
      {reads(partial_sums, blocks * 2 * width), writes(args.grad_weight, width), writes(args.grad_bias, width)},
      partial_sums, blocks, width, args.grad_weight, args.grad_bias);
}

}  // namespace
}  // namespace siglip2::cuda
