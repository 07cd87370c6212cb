// Steps that both passes of attention pooling take.
#pragma once

#include <limits>

#include "ops/map_pool/row_products.cuh"
#include "tensor/matrix_view.h"

namespace siglip2::cuda {
namespace {

constexpr std::int64_t kNoSecond = std::numeric_limits<std::int64_t>::max();

// A number for each token and head, `stride` apart for tokens.
struct TokenNumbers {
  const float* data;
  std::int64_t stride;
  std::int64_t count;  // of all floats
};

// scores[j · stride + h] = u_h · x_j.
template <typename T>
void score_tokens(OpContext& context, const ConstMatrixView& tokens, const float* probe_keys, int heads, float* scores,
                  std::int64_t stride) {
  RowDots<T, float> dots = {};
  dots.a = tokens.as<T>();
  dots.a_stride = tokens.stride;
  dots.b = probe_keys;
  dots.b_stride = tokens.columns;
  dots.c = scores;
  dots.c_stride_m = stride;
  dots.c_stride_n = 1;
  dots.m = tokens.rows;
  dots.n = heads;
  dots.k = tokens.columns;
  row_dots(context, "map_pool_scores", dots, 1,
           {reads(tokens), reads(probe_keys, heads * tokens.columns), writes(scores, tokens.rows * stride)});
}

// pooled[b · stride + h · width + c] = Σ_j numbers(j, h) x_j[c] over the tokens [offsets[b], offsets[b + 1]).
template <typename T>
void pool_tokens(OpContext& context, const ConstMatrixView& tokens, const TokenNumbers& numbers, int heads,
                 const std::int32_t* offsets, std::int64_t batches, float* pooled, std::int64_t stride) {
  RowSums<float, T, float> sums = {};
  sums.weights = numbers.data;
  sums.weight_stride_r = numbers.stride;
  sums.weight_stride_n = 1;
  sums.x = tokens.as<T>();
  sums.x_stride = tokens.stride;
  sums.first_rows = kNoSecond;
  sums.c = pooled;
  sums.c_stride = tokens.columns;
  sums.c_batch = stride;
  sums.n = heads;
  sums.columns = tokens.columns;
  sums.ragged = Ragged::kRows;
  sums.offsets = offsets;
  row_sums(context, "map_pool_sums", sums, batches,
           {reads(tokens), reads(numbers.data, numbers.count), reads(offsets, batches + 1),
            writes(MatrixView{pooled, DType::kFloat32, batches, heads * tokens.columns, stride})});
}

}  // namespace
}  // namespace siglip2::cuda
