// Attention by scalar float32 arithmetic, forward: float32, and bfloat16 of shapes and layouts that the matrix
// instructions do not take (any head_dim up to 256, rows of any alignment, any scale).
//
// Floor: 4·N²·d operations a head at the rate of FFMA (67 TFLOP/s on an H200); memory is the limit below some 30
// tokens.
//
// Plan: a block of 256 threads, 16 × 16, takes one head of one stretch of queries. Queries stay in shared memory as
// float32; a tile of keys, then the tile of its values take turns in a second tile. A thread computes kRows × kKeys
// scores (rows a sixteenth of the block apart, keys 16 apart) out of 16-byte loads, four values of the head dimension
// at a time, then kRows × 2·kPairs outputs; weights go to it through shared memory within its warp. Rows of tiles are
// an odd number of 16-byte chunks apart, so that no two of a quarter warp's loads meet in a bank. The tiles are as wide
// as the head dimension rounded up to 64, 96, 128 or 256; for the widest, tiles of 32 rows instead of 64 keep shared
// memory below 99 KB, which every chip has. Several blocks an SM hide each other's loads.
#pragma once

#include <cmath>
#include <type_traits>

#include "cuda/prim/barrier.h"
#include "cuda/prim/shared_memory.h"
#include "cuda/prim/vector.h"
#include "ops/attention/attention_tiles.cuh"

namespace siglip2::cuda {

template <typename T>
struct AttentionGeneralParameters {
  const AttentionWork* work;
  const T* query;
  const T* key;
  const T* value;
  T* output;
  float* log_sum_exp;  // may be null
  std::int64_t query_stride, key_stride, value_stride, output_stride, log_sum_exp_stride;
  int heads;
  int head_dim;
  bool causal;
  bool aligned;  // heads' rows of query, key, value start at multiples of 16 bytes and end there
  float scale_log2;
};

inline constexpr int kGeneralThreads = 256;

// kPairs: pairs of columns a thread has; the tiles are 32·kPairs wide.
template <int kPairs>
struct GeneralShape {
  static constexpr int kRows = kPairs <= 4 ? 4 : 2;  // of a thread; a tile has 16·kRows queries and as many keys
  static constexpr int kTileRows = 16 * kRows;
  static constexpr int kWidth = 32 * kPairs;
  static constexpr int kStride = kWidth + 4;
  static constexpr int kWeightStride = kTileRows + 4;
  static constexpr std::size_t kSharedBytes =
      static_cast<std::size_t>(2 * kTileRows * kStride + kTileRows * kWeightStride) * sizeof(float);
  static_assert(kSharedBytes <= 99 * 1024);
};

// Rows [0, valid_rows) of `source`, the rest and columns from head_dim on 0, as float32 into a tile.
template <int kPairs, typename T>
__device__ __forceinline__ void load_rows_as_float(float* tile, const T* source, std::int64_t stride, int valid_rows,
                                                   int head_dim, bool aligned) {
  using Shape = GeneralShape<kPairs>;
  constexpr int kValues = kWidest<T>;
  constexpr int kVectors = Shape::kWidth / kValues;  // of a row
  for (int i = static_cast<int>(threadIdx.x); i < Shape::kTileRows * kVectors; i += kGeneralThreads) {
    const int row = i / kVectors;
    const int column = i % kVectors * kValues;
    const T* const from = source + row * stride + column;
    Vector<float, 4> values[kValues / 4] = {};
    if (in_bounds(row < valid_rows)) {
      if (aligned) {
        if (in_bounds(column < head_dim)) {
          const auto vector = load_vector<kValues>(from);
#pragma unroll
          for (int j = 0; j < kValues; ++j)
            values[j / 4][j % 4] = to_float(vector[j]);
        }
      } else {
#pragma unroll
        for (int j = 0; j < kValues; ++j) {
          if (in_bounds(column + j < head_dim)) values[j / 4][j % 4] = to_float(from[j]);
        }
      }
    }
#pragma unroll
    for (int j = 0; j < kValues / 4; ++j)
      store_vector(tile + row * Shape::kStride + column + 4 * j, values[j]);
  }
}

// Maximum and sum over the 16 lanes that hold a row's scores. NaN is no maximum.
__device__ __forceinline__ float half_warp_maximum(float value) {
#pragma unroll
  for (int mask = 8; mask > 0; mask /= 2)
    value = fmaxf(value, shuffle_xor(value, mask));
  return value;
}

template <typename T, int kPairs>
__global__ void __launch_bounds__(kGeneralThreads, 2)
    attention_forward_general_kernel(AttentionGeneralParameters<T> parameters) {
  using Shape = GeneralShape<kPairs>;
  constexpr int kRows = Shape::kRows;
  const AttentionWork work = parameters.work[blockIdx.x / parameters.heads];
  if (work.queries == 0) return;
  const int head = static_cast<int>(blockIdx.x % parameters.heads);
  const int head_dim = parameters.head_dim;
  const std::int64_t head_column = std::int64_t{head} * head_dim;
  // This thread has rows first_row + r of the tile, keys lane + 16·j of each tile, columns 2·lane + 32·p.
  const int first_row = static_cast<int>(threadIdx.x) / 16 * kRows;
  const int lane = static_cast<int>(threadIdx.x) % 16;

  float* const queries = reinterpret_cast<float*>(shared_memory());
  float* const keys_values = queries + Shape::kTileRows * Shape::kStride;
  float* const weights = keys_values + Shape::kTileRows * Shape::kStride;

  float output[kRows][kPairs][2] = {};
  float maximum[kRows], sum[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    maximum[r] = -INFINITY;
    sum[r] = 0;
  }

  load_rows_as_float<kPairs>(queries, parameters.query + work.first_query * parameters.query_stride + head_column,
                             parameters.query_stride, work.queries, head_dim, parameters.aligned);
  for (int first_key = 0; first_key < work.keys; first_key += Shape::kTileRows) {
    const std::int64_t key_row = work.first_key + first_key;
    const int valid = work.keys - first_key;
    load_rows_as_float<kPairs>(keys_values, parameters.key + key_row * parameters.key_stride + head_column,
                               parameters.key_stride, valid, head_dim, parameters.aligned);
    block_barrier();

    float scores[kRows][kRows] = {};
    for (int column = 0; column < head_dim; column += 4) {
      Vector<float, 4> a[kRows], b[kRows];
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        a[r] = load_vector<4>(queries + (first_row + r) * Shape::kStride + column);
        b[r] = load_vector<4>(keys_values + (lane + 16 * r) * Shape::kStride + column);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
#pragma unroll
          for (int j = 0; j < kRows; ++j)
            scores[r][j] = fmaf(a[r][i], b[j][i], scores[r][j]);
        }
      }
    }

#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int position = work.position + first_row + r;
      const int visible = (parameters.causal ? std::min(work.keys, position + 1) : work.keys) - first_key;
      float most = -INFINITY;
#pragma unroll
      for (int j = 0; j < kRows; ++j) {
        scores[r][j] = in_bounds(lane + 16 * j < visible) ? scores[r][j] * parameters.scale_log2 : -INFINITY;
        most = fmaxf(most, scores[r][j]);
      }
      most = fmaxf(maximum[r], half_warp_maximum(most));
      // A row that has seen only −∞ so far keeps weights of 0.
      const float offset = most == -INFINITY ? 0.0f : most;
      const float factor = exp2f(maximum[r] - offset);
      maximum[r] = most;
      sum[r] *= factor;
#pragma unroll
      for (int j = 0; j < kRows; ++j) {
        const float weight = exp2f(scores[r][j] - offset);
        sum[r] += weight;
        weights[(first_row + r) * Shape::kWeightStride + lane + 16 * j] = weight;
      }
#pragma unroll
      for (int p = 0; p < kPairs; ++p) {
        output[r][p][0] *= factor;
        output[r][p][1] *= factor;
      }
    }

    block_barrier();  // nobody reads the keys any more
    load_rows_as_float<kPairs>(keys_values, parameters.value + key_row * parameters.value_stride + head_column,
                               parameters.value_stride, valid, head_dim, parameters.aligned);
    block_barrier();
#pragma unroll 2
    for (int key = 0; key < Shape::kTileRows; key += 4) {
      Vector<float, 4> weight[kRows];
#pragma unroll
      for (int r = 0; r < kRows; ++r)
        weight[r] = load_vector<4>(weights + (first_row + r) * Shape::kWeightStride + key);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int p = 0; p < kPairs; ++p) {
          const auto value = load_vector<2>(keys_values + (key + i) * Shape::kStride + 2 * lane + 32 * p);
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
            output[r][p][0] = fmaf(weight[r][i], value[0], output[r][p][0]);
            output[r][p][1] = fmaf(weight[r][i], value[1], output[r][p][1]);
          }
        }
      }
    }
    block_barrier();  // nor the values
  }

#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float total = warp_sum<16>(sum[r]);
    const int row = first_row + r;
    const float inverse = total == 0 ? 0.0f : 1.0f / total;
    if (in_bounds(row < work.queries)) {
      T* const to = parameters.output + (work.first_query + row) * parameters.output_stride + head_column;
#pragma unroll
      for (int p = 0; p < kPairs; ++p) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int column = 2 * lane + 32 * p + i;
          if (in_bounds(column < head_dim)) to[column] = from_float<T>(output[r][p][i] * inverse);
        }
      }
      if (parameters.log_sum_exp != nullptr && lane == 0) {
        parameters.log_sum_exp[(work.first_query + row) * parameters.log_sum_exp_stride + head] =
            total == 0 ? -INFINITY : maximum[r] * kLn2 + logf(total);
      }
    }
  }
}

}  // namespace siglip2::cuda
