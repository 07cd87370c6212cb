// What the sigmoid loss makes of products of images and texts (an epilogue, see cuda/matrix_epilogue.cuh): slopes n ·
// g, and sums of losses, of slopes, and of slopes times products.
//
// Plan: all pairs are taken as ones that do not belong together; those that do are corrected afterwards by the thread
// that has them. On the diagonal that is a comparison; in lists, a binary search for the texts of N neighbours. The two
// are kernels of their own, so that nothing pays for lists that are not there. u = e^−|l| gives both
//
//   softplus(±l) = max(±l, 0) + log(1 + u),    σ(±l) = 1/(1 + u) or u/(1 + u),
//
// none of which overflows or cancels: losses and slopes near 0 keep their digits. Sums of bfloat16 inputs are float32
// for the neighbours that a thread has at once; all else is double precision, in a fixed order.
#pragma once

#include <cmath>
#include <type_traits>

#include "cuda/block_reduce.h"
#include "cuda/matrix_epilogue.cuh"
#include "cuda/prim/math.h"

namespace siglip2::cuda {

// Of all pairs of a block, or of all blocks.
struct LossSums {
  double loss;
  double slope;
  double scaled;  // slopes times products
};

// Number: float, or double where logits must keep more digits than that.
template <typename Number>
struct PairLoss {
  Number loss;
  float slope;
};

// A logit of a pair that does not belong together (kMatch: that does).
template <bool kMatch, typename Number>
__device__ __forceinline__ PairLoss<Number> loss_of(Number logit) {
  float u, inverse;
  if constexpr (sizeof(Number) == 4) {
    u = exp2_fast(fabsf(logit) * -1.442695041f);
    inverse = reciprocal_fast(1.0f + u);
  } else {
    u = static_cast<float>(exp(-fabs(logit)));
    inverse = 1.0f / (1.0f + u);
  }
  const Number wrong = kMatch ? -logit : logit;
  const float probability = wrong < 0 ? u * inverse : inverse;
  return {(wrong > 0 ? wrong : Number{0}) + static_cast<Number>(log1pf(u)), kMatch ? -probability : probability};
}

// Which of N neighbouring pairs belong together: that of image i and text i.
struct DiagonalPairs {
  std::int64_t first_image;  // that is row 0

  struct Row {
    std::int64_t match;
    __device__ __forceinline__ bool holds(int i) const { return match == i; }
  };
  template <int N>
  __device__ __forceinline__ Row row(std::int64_t row, std::int64_t column) const {
    return {first_image + row - column};
  }
};

// Those in the lists of PositivePairs, on the device.
struct ListedPairs {
  const std::int32_t* offsets;  // from the image on that is row 0
  const std::int32_t* texts;

  struct Row {
    unsigned positives;  // a bit for each neighbour
    __device__ __forceinline__ bool holds(int i) const { return (positives >> i & 1u) != 0; }
  };
  template <int N>
  __device__ __forceinline__ Row row(std::int64_t row, std::int64_t column) const {
    std::int32_t first = offsets[row], last = offsets[row + 1];
    const std::int32_t end = last;
    while (first < last) {
      const std::int32_t middle = first + (last - first) / 2;
      if (texts[middle] < column) {
        first = middle + 1;
      } else {
        last = middle;
      }
    }
    unsigned positives = 0;
    for (; in_bounds(first < end) && texts[first] < column + N; ++first)
      positives |= 1u << (texts[first] - column);
    return {positives};
  }
};

template <typename T, typename Pairs>
struct LossEpilogue {
  using Number = std::conditional_t<sizeof(T) == 2, float, double>;

  T* slopes;            // [images, stride]; null when only the loss is wanted
  std::int64_t stride;  // texts, rounded up to eight: slopes of those that are not there are 0
  Pairs pairs;
  std::int64_t images;
  std::int64_t texts;
  Number scale;
  Number bias;
  LossSums* block_sums;

  double sums[3] = {};  // of the thread
  std::int64_t block = 0;

  struct Columns {};
  template <int N>
  __device__ __forceinline__ Columns columns(std::int64_t) const {
    return {};
  }

  __device__ __forceinline__ void start(const BlockPosition& position) { block = position.index; }

  template <int N>
  __device__ __forceinline__ void row(Columns, std::int64_t row, std::int64_t column, const Number (&products)[N]) {
    if (!in_bounds(row < images)) return;
    const std::int64_t left = texts - column;
    const typename Pairs::Row positives = pairs.template row<N>(row, column);
    float values[N];
    Number row_sums[3] = {};
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const Number logit = scale * products[i] + bias;
      PairLoss<Number> pair = loss_of<false>(logit);
      if (positives.holds(i)) pair = loss_of<true>(logit);
      if (!in_bounds(i < left)) pair = {0, 0};
      values[i] = pair.slope;
      row_sums[0] += pair.loss;
      row_sums[1] += pair.slope;
      row_sums[2] += pair.slope * products[i];
    }
#pragma unroll
    for (int i = 0; i < 3; ++i)
      sums[i] += static_cast<double>(row_sums[i]);
    if (slopes != nullptr) store_values(slopes + row * stride + column, values, true, stride - column);
  }

  __device__ __forceinline__ void finish(unsigned char* shared) {
    block_barrier();
    block_sum(sums, reinterpret_cast<double*>(shared));
    if (threadIdx.x == 0) block_sums[block] = {sums[0], sums[1], sums[2]};
  }
};

}  // namespace siglip2::cuda
