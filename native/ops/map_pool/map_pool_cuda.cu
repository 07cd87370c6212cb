// Attention pooling on GPUs.
//
// Floor: 2 · tokens · heads · width + sequences · width² multiply-adds and one read of the tokens. At width 1152, 16
// heads and 256 images of 256 tokens 2.8e9 multiply-adds (96 µs at the full rate of an H100) and 151 MB in bfloat16 (46
// µs): a thousandth of the encoder before it, so float32 multiply-adds will do, with the same digits for both types.
//
// Plan: four kernels, of two kinds (row_products.cuh): scores are dot products of all tokens with all probe keys, then
// come the softmax (token_weights.cuh) and the weighted sums of the tokens, in float32, and the output is dot products
// of the value weight's rows with them. Tokens are read twice, the second time from the L2 cache as far as they fit.
// Long sequences need no other treatment: the warps of a block share out the tokens, and blocks the columns.
//
// The gradient is in map_pool_backward.cuh.
#include "ops/map_pool/map_pool.h"

#include "cuda/dtype_switch.h"
#include "cuda/kernels.h"
#include "cuda/scratch.h"
#include "ops/map_pool/map_pool_backward.cuh"
#include "ops/map_pool/map_pool_steps.cuh"
#include "ops/map_pool/token_weights.cuh"

namespace siglip2::cuda {
namespace {

template <typename T>
void start(OpContext& context, const MapPoolArgs& args) {
  Scratch scratch(context);
  const std::int64_t tokens = args.tokens.rows, width = args.tokens.columns, heads = args.heads;
  const std::int64_t head_dim = width / heads, pooled_count = args.sequences * heads * width;
  const std::int32_t* const offsets = scratch.upload(args.offsets, args.sequences + 1);
  float* const weights = scratch.allocate<float>(tokens * heads);
  float* const pooled = scratch.allocate<float>(pooled_count);

  score_tokens<T>(context, args.tokens, args.probe_keys, args.heads, weights, heads);
  launch(context, "map_pool_softmax", softmax_kernel, {args.sequences, kSoftmaxWarps * kWarpSize},
         {reads(offsets, args.sequences + 1), writes(weights, tokens * heads)}, weights, heads, offsets, args.heads);
  pool_tokens<T>(context, args.tokens, {weights, heads, tokens * heads}, args.heads, offsets, args.sequences, pooled,
                 heads * width);

  RowDots<float, T> output = {};
  output.a = args.value_weight;
  output.a_stride = width;
  output.a_batch = head_dim * width;
  output.b = pooled;
  output.b_stride = heads * width;
  output.b_batch = width;
  output.c = args.output.as<T>();
  output.c_stride_m = 1;
  output.c_stride_n = args.output.stride;
  output.c_batch = head_dim;
  output.bias = args.value_bias;
  output.bias_batch = head_dim;
  output.m = head_dim;
  output.n = args.sequences;
  output.k = width;
  row_dots(context, "map_pool_values", output, heads,
           {reads(args.value_weight, width * width), reads(pooled, pooled_count), reads(args.value_bias, width),
            writes(args.output)});
}

}  // namespace

void map_pool_cuda(OpContext& context, const MapPoolArgs& args) {
  with_activation_type(args.tokens.dtype, [&](auto type) { start<decltype(type)>(context, args); });
}

void map_pool_backward_cuda(OpContext& context, const MapPoolBackwardArgs& args) {
  with_activation_type(args.tokens.dtype, [&](auto type) { start_backward<decltype(type)>(context, args); });
}

}  // namespace siglip2::cuda
