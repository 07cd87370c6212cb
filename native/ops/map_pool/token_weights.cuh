// Softmax over the tokens of each sequence, and its gradient.
//
// Floor: a few bytes for each token and head, which the L2 cache holds from the product before.
//
// Plan: a block takes a sequence, a warp its heads in turn, lanes the tokens: the heads of a token are neighbours, so
// that the cache lines of one warp are those of the others. Maximum and sum are exact, in two passes, not online:
// scores are so much smaller than tokens that reading them again costs nothing.
#pragma once

#include <cmath>
#include <limits>

#include "cuda/prim/bounds.h"
#include "cuda/prim/warp.h"

namespace siglip2::cuda {
namespace {

constexpr int kSoftmaxWarps = 8;

// Scores to weights, in place: head h of token j at [j · stride + h].
__global__ void __launch_bounds__(kSoftmaxWarps* kWarpSize)
    softmax_kernel(float* scores, std::int64_t stride, const std::int32_t* offsets, int heads) {
  const std::int64_t first = offsets[blockIdx.x], end = offsets[blockIdx.x + 1];
  for (int head = warp_index(); head < heads; head += kSoftmaxWarps) {
    float most = -std::numeric_limits<float>::infinity();
    for (std::int64_t j = first + lane_index(); j < end; j += kWarpSize)
      most = fmaxf(most, scores[j * stride + head]);
    most = warp_max(most);
    float sum = 0;
    for (std::int64_t j = first + lane_index(); j < end; j += kWarpSize) {
      const float weight = expf(scores[j * stride + head] - most);
      scores[j * stride + head] = weight;
      sum += weight;
    }
    const float scale = 1.0f / warp_sum(sum);
    for (std::int64_t j = first + lane_index(); j < end; j += kWarpSize)
      scores[j * stride + head] *= scale;
  }
}

// From weights w at [j · 2 heads + h] and t_j = d_h · x_j at [j · 2 heads + heads + h] to the gradients of the scores,
// s_j = w_j (t_j − Σ w t), in the place of t. The sum is d_h · p_h.
__global__ void __launch_bounds__(kSoftmaxWarps* kWarpSize)
    softmax_backward_kernel(float* weights, const std::int32_t* offsets, int heads) {
  const std::int64_t first = offsets[blockIdx.x], end = offsets[blockIdx.x + 1], stride = 2 * heads;
  float* const gradients = weights + heads;
  for (int head = warp_index(); head < heads; head += kSoftmaxWarps) {
    float product = 0;
    for (std::int64_t j = first + lane_index(); j < end; j += kWarpSize)
      product += weights[j * stride + head] * gradients[j * stride + head];
    product = warp_sum(product);
    for (std::int64_t j = first + lane_index(); j < end; j += kWarpSize)
      gradients[j * stride + head] = weights[j * stride + head] * (gradients[j * stride + head] - product);
  }
}

}  // namespace
}  // namespace siglip2::cuda
