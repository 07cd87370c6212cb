// Backward pass of attention in float32 arithmetic, for float32 and bfloat16 matrices of any head dimension up to 256,
// any alignment and any strides. What the blocks compute is in attention_backward_work.cuh.
//
// Floor: 14 · queries · keys · head_dim operations a head (both kinds of blocks form S and dP), at 128 multiply-adds a
// clock and multiprocessor; memory is far from the limit.
//
// Plan: kTile resident rows a block, which 4 warps share evenly, and kTile streamed rows at a time; all four matrices
// lie in shared memory as float32, rows padded with zeros to whole vectors of 4. A warp forms S and dP for its own rows
// (a lane: kTile / 16 rows by kTile / 8 columns), leaves P and dS in shared memory, where only the warp reads them, and
// adds to its rows' gradients, of which a lane holds vectors of 4 columns in registers. Rows take an odd number of
// vectors, so that the 8 rows that lanes read at once lie in distinct banks. Head dimensions up to 64 and 128 take
// tiles of 32, larger ones 16, within 76 KiB.
#pragma once

#include "cuda/prim/barrier.h"
#include "cuda/prim/bounds.h"
#include "cuda/prim/launch.h"
#include "cuda/prim/shared_memory.h"
#include "cuda/prim/vector.h"
#include "cuda/prim/warp.h"
#include "cuda/scratch.h"
#include "ops/attention/attention_backward_work.cuh"
#include "ops/attention/attention_tiles.cuh"

namespace siglip2::cuda::attention_backward {

inline constexpr int kGeneralWarps = 4;

// For head dimensions up to 4 · kColumnLanes · kVectors.
template <int kTileRows, int kColumnLaneCount, int kVectorCount>
struct GeneralTiling {
  static constexpr int kTile = kTileRows;
  static constexpr int kColumnLanes = kColumnLaneCount;  // lanes side by side over the columns of a gradient
  static constexpr int kVectors = kVectorCount;          // of 4 columns, of a lane, kColumnLanes vectors apart
  static constexpr int kWarpRows = kTile / kGeneralWarps;
  static constexpr int kRowGroups = kWarpSize / kColumnLanes;
  static constexpr int kGradientRows = kWarpRows / kRowGroups;  // of a lane
  static constexpr int kScoreRows = kWarpRows / 4;              // of a lane, in S and dP
  static constexpr int kScoreColumns = kTile / 8;
  static constexpr int kScoreRow = kTile + 8;  // from row to row of P and dS: four rows by eight in distinct banks

  static int row_floats(int head_dim) { return ((head_dim + 3) / 4 | 1) * 4; }
  static std::size_t shared_bytes(int head_dim) {
    return sizeof(float) * static_cast<std::size_t>(4 * kTile * row_floats(head_dim) + 2 * kTile * kScoreRow);
  }
};

// kTile rows as float32 into shared memory; zeros past the valid rows and past the head dimension.
template <int kTile, typename T>
__device__ __forceinline__ void load_rows(float* to, Rows<const T> from, int valid, int head_dim, int row_floats) {
  for (int row = warp_index(); row < kTile; row += kGeneralWarps) {
    const bool row_exists = in_bounds(row < valid);
    for (int column = lane_index(); column < row_floats; column += kWarpSize) {
      float value = 0.0f;
      if (row_exists && in_bounds(column < head_dim)) value = to_float(from.data[row * from.stride + column]);
      to[row * row_floats + column] = value;
    }
  }
}

template <typename Shape>
using LaneScores = float[Shape::kScoreRows][Shape::kScoreColumns];
template <typename Shape>
using LaneGradient = float[Shape::kGradientRows][Shape::kVectors][4];

// scores = resident · streamedᵀ: rows lane / 8 + 4i of the warp's by streamed rows lane % 8 + 8j.
template <typename Shape>
__device__ __forceinline__ void dot_rows(LaneScores<Shape>& scores, const float* resident, const float* streamed,
                                         int row_floats) {
  const int lane = lane_index();
#pragma unroll
  for (int i = 0; i < Shape::kScoreRows; ++i) {
#pragma unroll
    for (int j = 0; j < Shape::kScoreColumns; ++j)
      scores[i][j] = 0.0f;
  }
#pragma unroll 1
  for (int column = 0; column < row_floats; column += 4) {
    Vector<float, 4> left[Shape::kScoreRows];
#pragma unroll
    for (int i = 0; i < Shape::kScoreRows; ++i)
      left[i] = load_vector<4>(resident + (lane / 8 + 4 * i) * row_floats + column);
#pragma unroll
    for (int j = 0; j < Shape::kScoreColumns; ++j) {
      const auto right = load_vector<4>(streamed + (lane % 8 + 8 * j) * row_floats + column);
#pragma unroll
      for (int i = 0; i < Shape::kScoreRows; ++i) {
        // Four products first: a quarter as many roundings of the long sum, on which all weights depend.
        float part = left[i][0] * right[0];
#pragma unroll
        for (int e = 1; e < 4; ++e)
          part = fmaf(left[i][e], right[e], part);
        scores[i][j] += part;
      }
    }
  }
}

// gradient += weights · streamed, for this lane's rows (of the warp's rows of weights) and columns.
template <typename Shape>
__device__ __forceinline__ void add_rows(LaneGradient<Shape>& gradient, const float* weights, const float* streamed,
                                         int row_floats) {
  const int lane = lane_index();
  const int first_row = lane / Shape::kColumnLanes * Shape::kGradientRows;
  const int first_column = lane % Shape::kColumnLanes * 4;
#pragma unroll 1
  for (int streamed_row = 0; streamed_row < Shape::kTile; ++streamed_row) {
    float weight[Shape::kGradientRows];
#pragma unroll
    for (int i = 0; i < Shape::kGradientRows; ++i)
      weight[i] = weights[(first_row + i) * Shape::kScoreRow + streamed_row];
#pragma unroll
    for (int v = 0; v < Shape::kVectors; ++v) {
      const int column = first_column + v * Shape::kColumnLanes * 4;
      if (column < row_floats) {
        const auto values = load_vector<4>(streamed + streamed_row * row_floats + column);
#pragma unroll
        for (int i = 0; i < Shape::kGradientRows; ++i) {
#pragma unroll
          for (int e = 0; e < 4; ++e)
            gradient[i][v][e] = fmaf(weight[i], values[e], gradient[i][v][e]);
        }
      }
    }
  }
}

template <typename Shape, typename T>
__device__ __forceinline__ void store_gradient(Rows<T> to, const LaneGradient<Shape>& gradient, float factor, int valid,
                                               int head_dim) {
  const int lane = lane_index();
#pragma unroll
  for (int i = 0; i < Shape::kGradientRows; ++i) {
    const int row = lane / Shape::kColumnLanes * Shape::kGradientRows + i;
    const bool row_exists = in_bounds(row < valid);
#pragma unroll
    for (int v = 0; v < Shape::kVectors; ++v) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int column = (lane % Shape::kColumnLanes + v * Shape::kColumnLanes) * 4 + e;
        if (row_exists && in_bounds(column < head_dim))
          to.data[row * to.stride + column] = from_float<T>(gradient[i][v][e] * factor);
      }
    }
  }
}

// Finishes the gradients of an item's resident rows.
template <typename Shape, Resident kResident, typename T>
__device__ __forceinline__ void finish_rows_general(const Operands<T>& operands, const WorkItem& item, int head,
                                                    int row_floats) {
  constexpr bool kKeys = kResident == Resident::kKeys;
  constexpr int kTile = Shape::kTile;
  const int head_dim = operands.head_dim;
  const Roles<kResident, T> roles(operands, item, std::int64_t{head} * head_dim);
  const Statistic* const statistics = operands.statistics + head * operands.queries;
  const int lane = lane_index();
  const int warp_row = warp_index() * Shape::kWarpRows;

  float* const resident1 = reinterpret_cast<float*>(shared_memory());
  float* const resident2 = resident1 + kTile * row_floats;
  float* const streamed1 = resident2 + kTile * row_floats;
  float* const streamed2 = streamed1 + kTile * row_floats;
  float* const warp_weights = streamed2 + kTile * row_floats + warp_row * Shape::kScoreRow;
  float* const warp_slopes = warp_weights + kTile * Shape::kScoreRow;

  load_rows<kTile>(resident1, roles.resident1, item.resident_rows, head_dim, row_floats);
  load_rows<kTile>(resident2, roles.resident2, item.resident_rows, head_dim, row_floats);

  LaneGradient<Shape> gradient1 = {};
  LaneGradient<Shape> gradient2 = {};
  const Range range = visible_rows<kResident>(item, operands.causal, kTile);
  for (int first = range.first; first < range.end; first += kTile) {
    const int valid = item.streamed_rows - first;
    load_rows<kTile>(streamed1, roles.streamed1.from(first, 0), valid, head_dim, row_floats);
    load_rows<kTile>(streamed2, roles.streamed2.from(first, 0), valid, head_dim, row_floats);
    block_barrier();
    LaneScores<Shape> score;
    LaneScores<Shape> slope;
    dot_rows<Shape>(score, resident1 + warp_row * row_floats, streamed1, row_floats);
    dot_rows<Shape>(slope, resident2 + warp_row * row_floats, streamed2, row_floats);
#pragma unroll
    for (int i = 0; i < Shape::kScoreRows; ++i) {
      const int row = lane / 8 + 4 * i;
      const bool row_exists = in_bounds(warp_row + row < item.resident_rows);
#pragma unroll
      for (int j = 0; j < Shape::kScoreColumns; ++j) {
        const int column = lane % 8 + 8 * j;
        float weight = 0.0f;
        float gradient = 0.0f;
        if (row_exists && in_bounds(column < valid) &&
            attends<kResident>(item.resident_position + warp_row + row, first + column, operands.causal)) {
          const Statistic statistic =
              statistics[kKeys ? item.streamed_row + first + column : item.resident_row + warp_row + row];
          // The difference first: where weights matter it is small, and so exact.
          const float exponent = fmaf(score[i][j], operands.scale, -statistic.log_sum_exp);
          weight = exp2f(exponent * kLog2E);
          gradient = weight * (slope[i][j] - statistic.product);
        }
        if constexpr (kKeys) warp_weights[row * Shape::kScoreRow + column] = weight;
        warp_slopes[row * Shape::kScoreRow + column] = gradient;
      }
    }
    warp_barrier();
    add_rows<Shape>(gradient1, warp_slopes, streamed1, row_floats);
    if constexpr (kKeys) add_rows<Shape>(gradient2, warp_weights, streamed2, row_floats);
    block_barrier();
  }

  const int valid_rows = item.resident_rows - warp_row;
  store_gradient<Shape>(roles.gradient1.from(warp_row, 0), gradient1, operands.scale, valid_rows, head_dim);
  if constexpr (kKeys) store_gradient<Shape>(roles.gradient2.from(warp_row, 0), gradient2, 1.0f, valid_rows, head_dim);
}

template <typename Shape, typename T>
__global__ void __launch_bounds__(kGeneralWarps* kWarpSize, 2)
    general_kernel(const Operands<T> operands, int row_floats) {
  const WorkItem item = operands.items[blockIdx.x / static_cast<unsigned>(operands.heads)];
  const int head = static_cast<int>(blockIdx.x % static_cast<unsigned>(operands.heads));
  if (item.side == Resident::kKeys) {
    finish_rows_general<Shape, Resident::kKeys>(operands, item, head, row_floats);
  } else {
    finish_rows_general<Shape, Resident::kQueries>(operands, item, head, row_floats);
  }
}

template <typename Shape, typename T>
void start_general(OpContext& context, const AttentionBackwardArgs& args, const Statistic* statistics) {
  Scratch scratch(context);
  const std::vector<WorkItem> items = list_work(args, Shape::kTile);
  const auto count = static_cast<std::int64_t>(items.size());
  const WorkItem* const uploaded = scratch.upload(items.data(), count);
  launch(context, "attention_backward_general", general_kernel<Shape, T>,
         {count * args.heads, kGeneralWarps * kWarpSize, Shape::shared_bytes(args.head_dim)},
         {reads(args.query), reads(args.key), reads(args.value), reads(args.grad_output),
          reads(statistics, args.query.rows * args.heads), reads(uploaded, count), writes(args.grad_query),
          writes(args.grad_key), writes(args.grad_value)},
         operands_of<T>(args, statistics, uploaded), Shape::row_floats(args.head_dim));
}

}  // namespace siglip2::cuda::attention_backward
