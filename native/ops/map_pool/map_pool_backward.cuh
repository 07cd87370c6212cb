// Gradients of attention pooling on GPUs.
//
// Floor: 6 · tokens · heads · width + 2 · sequences · width² multiply-adds, one read of the tokens and one write of
// their gradients; some 0.25 ms at width 1152, 16 heads and 256 images of 256 tokens, a thousandth of an encoder's
// gradient.
//
// Plan: the products of row_products.cuh again. Weights w and gradients of scores s lie side by side, [token][w, s], so
// that the gradient of a token is one weighted sum, over the rows d of its sequence and then the rows u. The gradient
// of the probe keys is summed in chunks of kChunkTokens tokens, which are then added in order: parts depend on the
// number of tokens alone. All other sums over sequences run inside of one block.
#pragma once

#include <vector>

#include "cuda/scratch.h"
#include "ops/map_pool/map_pool.h"
#include "ops/map_pool/map_pool_steps.cuh"
#include "ops/map_pool/token_weights.cuh"

namespace siglip2::cuda {
namespace {

constexpr std::int64_t kChunkTokens = 1024;
constexpr int kColumnThreads = 128;

// target[i] += Σ_p parts[p][i], in order.
__global__ void __launch_bounds__(kColumnThreads)
    add_parts_kernel(const float* parts, std::int64_t count, std::int64_t size, float* target) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kColumnThreads + threadIdx.x;
  if (!in_bounds(i < size)) return;
  float sum = 0;
  for (std::int64_t part = 0; part < count; ++part)
    sum += parts[part * size + i];
  target[i] += sum;
}

// target[c] += Σ_rows matrix[row][c], in order.
template <typename T>
__global__ void __launch_bounds__(kColumnThreads)
    add_rows_kernel(const T* matrix, std::int64_t stride, std::int64_t rows, std::int64_t columns, float* target) {
  const std::int64_t column = std::int64_t{blockIdx.x} * kColumnThreads + threadIdx.x;
  if (!in_bounds(column < columns)) return;
  float sum = 0;
  for (std::int64_t row = 0; row < rows; ++row)
    sum += to_float(matrix[row * stride + column]);
  target[column] += sum;
}

// d_h = W_v,hᵀ grad_output_h of every sequence.
template <typename T>
void differentiate_pooled(OpContext& context, const MapPoolBackwardArgs& args) {
  const std::int64_t width = args.tokens.columns, head_dim = width / args.heads;
  RowSums<T, float, float> sums = {};
  sums.weights = args.grad_output.as<T>();
  sums.weight_stride_r = 1;
  sums.weight_stride_n = args.grad_output.stride;
  sums.weight_batch = head_dim;
  sums.x = args.value_weight;
  sums.x_stride = width;
  sums.x_batch = head_dim * width;
  sums.first_rows = kNoSecond;
  sums.c = args.grad_pooled.as<float>();
  sums.c_stride = args.grad_pooled.stride;
  sums.c_batch = width;
  sums.rows = head_dim;
  sums.n = args.sequences;
  sums.columns = width;
  row_sums(context, "map_pool_grad_pooled", sums, args.heads,
           {reads(args.grad_output), reads(args.value_weight, width * width), writes(args.grad_pooled)});
}

// t_j = d_h · x_j, beside the weights.
template <typename T>
void differentiate_weights(OpContext& context, const MapPoolBackwardArgs& args, const std::int32_t* offsets,
                           std::int64_t most_tokens, float* weights) {
  const std::int64_t width = args.tokens.columns, heads = args.heads;
  RowDots<T, float> dots = {};
  dots.a = args.tokens.as<T>();
  dots.a_stride = args.tokens.stride;
  dots.b = args.grad_pooled.as<float>();
  dots.b_stride = width;
  dots.b_batch = args.grad_pooled.stride;
  dots.c = weights + heads;
  dots.c_stride_m = 2 * heads;
  dots.c_stride_n = 1;
  dots.m = most_tokens;
  dots.n = heads;
  dots.k = width;
  dots.offsets = offsets;
  row_dots(context, "map_pool_grad_weights", dots, args.sequences,
           {reads(args.tokens), reads(args.grad_pooled), reads(offsets, args.sequences + 1),
            writes(weights, args.tokens.rows * 2 * heads)});
}

// grad_tokens_j = Σ_h w_j d_h + Σ_h s_j u_h.
template <typename T>
void differentiate_tokens(OpContext& context, const MapPoolBackwardArgs& args, const std::int32_t* offsets,
                          std::int64_t most_tokens, const float* weights) {
  const std::int64_t width = args.tokens.columns, heads = args.heads;
  RowSums<float, float, T> sums = {};
  sums.weights = weights;
  sums.weight_stride_r = 1;
  sums.weight_stride_n = 2 * heads;
  sums.x = args.grad_pooled.as<float>();
  sums.x_stride = width;
  sums.x_batch = args.grad_pooled.stride;
  sums.second = args.probe_keys;
  sums.second_stride = width;
  sums.first_rows = heads;
  sums.c = args.grad_tokens.as<T>();
  sums.c_stride = args.grad_tokens.stride;
  sums.rows = 2 * heads;
  sums.n = most_tokens;
  sums.columns = width;
  sums.ragged = Ragged::kOutputs;
  sums.offsets = offsets;
  row_sums(context, "map_pool_grad_tokens", sums, args.sequences,
           {reads(weights, args.tokens.rows * 2 * heads), reads(args.grad_pooled),
            reads(args.probe_keys, heads * width), reads(offsets, args.sequences + 1), writes(args.grad_tokens)});
}

// grad_value_weight_h += grad_output_h p_hᵀ and grad_value_bias += grad_output, over all sequences.
template <typename T>
void differentiate_value_weight(OpContext& context, const MapPoolBackwardArgs& args) {
  const std::int64_t width = args.tokens.columns, head_dim = width / args.heads;
  RowSums<T, float, float> sums = {};
  sums.weights = args.grad_output.as<T>();
  sums.weight_stride_r = args.grad_output.stride;
  sums.weight_stride_n = 1;
  sums.weight_batch = head_dim;
  sums.x = args.pooled.as<float>();
  sums.x_stride = args.pooled.stride;
  sums.x_batch = width;
  sums.first_rows = kNoSecond;
  sums.c = args.grad_value_weight;
  sums.c_stride = width;
  sums.c_batch = head_dim * width;
  sums.accumulate = true;
  sums.rows = args.sequences;
  sums.n = head_dim;
  sums.columns = width;
  row_sums(context, "map_pool_grad_value_weight", sums, args.heads,
           {reads(args.grad_output), reads(args.pooled), writes(args.grad_value_weight, width * width)});
  launch(context, "map_pool_grad_value_bias", add_rows_kernel<T>,
         {(width + kColumnThreads - 1) / kColumnThreads, kColumnThreads},
         {reads(args.grad_output), writes(args.grad_value_bias, width)}, args.grad_output.as<T>(),
         args.grad_output.stride, args.sequences, width, args.grad_value_bias);
}

// grad_probe_keys_h += Σ_j s_j x_j over all tokens.
template <typename T>
void differentiate_probe_keys(OpContext& context, const MapPoolBackwardArgs& args, const float* weights) {
  Scratch scratch(context);
  const std::int64_t tokens = args.tokens.rows, width = args.tokens.columns, heads = args.heads;
  const std::int64_t chunks = (tokens + kChunkTokens - 1) / kChunkTokens, size = heads * width;
  std::vector<std::int32_t> chunk_starts;
  for (std::int64_t chunk = 0; chunk <= chunks; ++chunk)
    chunk_starts.push_back(static_cast<std::int32_t>(chunk < chunks ? chunk * kChunkTokens : tokens));
  const std::int32_t* const starts = scratch.upload(chunk_starts.data(), chunks + 1);
  float* const parts = scratch.allocate<float>(chunks * size);
  pool_tokens<T>(context, args.tokens, {weights + heads, 2 * heads, tokens * 2 * heads - heads}, args.heads, starts,
                 chunks, parts, size);
  launch(context, "map_pool_grad_probe_keys", add_parts_kernel,
         {(size + kColumnThreads - 1) / kColumnThreads, kColumnThreads},
         {reads(parts, chunks * size), writes(args.grad_probe_keys, size)}, parts, chunks, size, args.grad_probe_keys);
}

inline std::int64_t longest(const std::int32_t* offsets, std::int64_t sequences) {
  std::int64_t most = 0;
  for (std::int64_t s = 0; s < sequences; ++s) {
    const std::int64_t count = offsets[s + 1] - offsets[s];
    if (count > most) most = count;
  }
  return most;
}

template <typename T>
void start_backward(OpContext& context, const MapPoolBackwardArgs& args) {
  Scratch scratch(context);
  const std::int64_t tokens = args.tokens.rows, heads = args.heads, both = tokens * 2 * heads;
  const std::int64_t most_tokens = longest(args.offsets, args.sequences);
  const std::int32_t* const offsets = scratch.upload(args.offsets, args.sequences + 1);
  float* const weights = scratch.allocate<float>(both);
  const LaunchShape per_sequence = {args.sequences, kSoftmaxWarps * kWarpSize};

  score_tokens<T>(context, args.tokens, args.probe_keys, args.heads, weights, 2 * heads);
  launch(context, "map_pool_softmax", softmax_kernel, per_sequence,
         {reads(offsets, args.sequences + 1), writes(weights, both)}, weights, 2 * heads, offsets, args.heads);
  differentiate_pooled<T>(context, args);
  differentiate_weights<T>(context, args, offsets, most_tokens, weights);
  launch(context, "map_pool_softmax_backward", softmax_backward_kernel, per_sequence,
         {reads(offsets, args.sequences + 1), writes(weights, both)}, weights, offsets, args.heads);
  if (args.grad_tokens.data != nullptr) differentiate_tokens<T>(context, args, offsets, most_tokens, weights);
  if (args.grad_probe_keys == nullptr) return;
  pool_tokens<T>(context, args.tokens, {weights, 2 * heads, both}, args.heads, offsets, args.sequences,
                 args.pooled.as<float>(), args.pooled.stride);
  differentiate_value_weight<T>(context, args);
  differentiate_probe_keys<T>(context, args, weights);
}

}  // namespace
}  // namespace siglip2::cuda
