// The probe's keys and their gradients on GPUs, in double precision.
//
// Floor: memory, once a step: two reads of width × width matrices, backward another read and a write of both gradients;
// 3 µs and 10 µs at width 1152.
//
// Plan: products of a matrix and a vector. Where the sum runs along a row (queries, their gradients), a warp takes a
// row of the matrix, its lanes neighbouring columns; the gradients of that row's weights, which need nothing else, are
// added there too. Where it runs down the columns (keys, gradient of the probe) a lane takes a column, and the warps of
// a block share out the rows and are added in order.
#include <cmath>

#include "cuda/kernels.h"
#include "cuda/prim/barrier.h"
#include "cuda/prim/bounds.h"
#include "cuda/prim/launch.h"
#include "cuda/prim/shared_memory.h"
#include "cuda/prim/warp.h"
#include "cuda/scratch.h"
#include "ops/map_pool/map_pool.h"

namespace siglip2::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarpSize;

// Σ a[i] b[i], the same in every lane.
__device__ __forceinline__ double warp_dot(const float* a, const float* b, std::int64_t count) {
  double sum = 0;
  for (std::int64_t i = lane_index(); i < count; i += kWarpSize)
    sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return warp_sum(sum);
}

// queries[row] = W_q probe + b_q.
__global__ void __launch_bounds__(kThreads)
    query_kernel(const float* probe, const float* weight, const float* bias, std::int64_t width, double* queries) {
  const std::int64_t row = std::int64_t{blockIdx.x} * kWarps + warp_index();
  if (!in_bounds(row < width)) return;
  const double query = warp_dot(weight + row * width, probe, width) + static_cast<double>(bias[row]);
  if (lane_index() == 0) queries[row] = query;
}

// target[b][c] = scale · Σ_r factors[b · rows + r] matrix[b · rows + r][c], or added to it. blockIdx.y is b.
__global__ void __launch_bounds__(kThreads)
    column_sums_kernel(const double* factors, const float* matrix, std::int64_t rows, std::int64_t width, double scale,
                       bool accumulate, float* target) {
  double* const parts = reinterpret_cast<double*>(shared_memory());  // [kWarps][32]
  const std::int64_t column = std::int64_t{blockIdx.x} * kWarpSize + lane_index();
  const std::int64_t first = std::int64_t{blockIdx.y} * rows;
  double sum = 0;
  if (in_bounds(column < width)) {
    for (std::int64_t row = first + warp_index(); row < first + rows; row += kWarps)
      sum += factors[row] * static_cast<double>(matrix[row * width + column]);
  }
  parts[threadIdx.x] = sum;
  block_barrier();
  if (warp_index() == 0 && in_bounds(column < width)) {
    for (int warp = 1; warp < kWarps; ++warp)
      sum += parts[warp * kWarpSize + lane_index()];
    float* const element = target + std::int64_t{blockIdx.y} * width + column;
    *element = static_cast<float>(scale * sum + (accumulate ? static_cast<double>(*element) : 0.0));
  }
}

// Everything that belongs to a row of the matrices: the gradient of its query, which goes to grad_queries, and those of
// its weights and its bias.
__global__ void __launch_bounds__(kThreads)
    probe_rows_kernel(ProbeKeysBackwardArgs args, double scale, double* grad_queries) {
  const std::int64_t width = args.forward.width;
  const std::int64_t row = std::int64_t{blockIdx.x} * kWarps + warp_index();
  if (!in_bounds(row < width)) return;
  const float* const grad_key = args.grad_probe_keys + row / (width / args.forward.heads) * width;
  const float* const probe = args.forward.probe;
  const double grad_query = scale * warp_dot(args.forward.key_weight + row * width, grad_key, width);
  const double query = warp_dot(args.forward.query_weight + row * width, probe, width) +
                       static_cast<double>(args.forward.query_bias[row]);
  if (lane_index() == 0) {
    grad_queries[row] = grad_query;
    if (args.grad_query_bias != nullptr)
      args.grad_query_bias[row] = static_cast<float>(static_cast<double>(args.grad_query_bias[row]) + grad_query);
  }
  const auto add = [width, row](float* matrix, double factor, const float* vector) {
    if (matrix == nullptr) return;
    float* const target = matrix + row * width;
    for (std::int64_t i = lane_index(); i < width; i += kWarpSize)
      target[i] = static_cast<float>(static_cast<double>(target[i]) + factor * static_cast<double>(vector[i]));
  };
  add(args.grad_key_weight, scale * query, grad_key);
  add(args.grad_query_weight, grad_query, probe);
}

double scale_of(const ProbeKeysArgs& args) {
  return 1.0 / std::sqrt(static_cast<double>(args.width / args.heads));
}

constexpr std::size_t kPartsBytes = kThreads * sizeof(double);

}  // namespace

void probe_keys_cuda(OpContext& context, const ProbeKeysArgs& args) {
  Scratch scratch(context);
  const std::int64_t width = args.width, matrix = width * width;
  double* const queries = scratch.allocate<double>(width);
  launch(context, "probe_queries", query_kernel, {(width + kWarps - 1) / kWarps, kThreads},
         {reads(args.probe, width), reads(args.query_weight, matrix), reads(args.query_bias, width),
          writes(queries, width)},
         args.probe, args.query_weight, args.query_bias, width, queries);
  launch(context, "probe_keys", column_sums_kernel,
         {(width + kWarpSize - 1) / kWarpSize, kThreads, kPartsBytes, args.heads},
         {reads(queries, width), reads(args.key_weight, matrix), writes(args.probe_keys, args.heads * width)}, queries,
         args.key_weight, width / args.heads, width, scale_of(args), false, args.probe_keys);
}

void probe_keys_backward_cuda(OpContext& context, const ProbeKeysBackwardArgs& args) {
  Scratch scratch(context);
  const ProbeKeysArgs& forward = args.forward;
  const std::int64_t width = forward.width, matrix = width * width;
  double* const grad_queries = scratch.allocate<double>(width);
  launch(context, "probe_keys_backward", probe_rows_kernel, {(width + kWarps - 1) / kWarps, kThreads},
         {reads(forward.probe, width), reads(forward.query_weight, matrix), reads(forward.query_bias, width),
          reads(forward.key_weight, matrix), reads(args.grad_probe_keys, forward.heads * width),
          writes(args.grad_query_bias, width), writes(args.grad_query_weight, matrix),
          writes(args.grad_key_weight, matrix), writes(grad_queries, width)},
         args, scale_of(forward), grad_queries);
  if (args.grad_probe == nullptr) return;
  launch(context, "probe_gradient", column_sums_kernel, {(width + kWarpSize - 1) / kWarpSize, kThreads, kPartsBytes},
         {reads(grad_queries, width), reads(forward.query_weight, matrix), writes(args.grad_probe, width)},
         grad_queries, forward.query_weight, width, width, 1.0, true, args.grad_probe);
}

}  // namespace siglip2::cuda
