// The two products that attention pooling is made of, of matrices much too narrow for tiles of tensor cores: dot
// products of rows, and weighted sums of rows. Everything accumulates in float32 in an order that depends on shapes
// alone.
//
// Floor: with 16 heads each element of the tokens takes part in 16 multiply-adds a product. At width 1152 and 65536
// tokens (256 images of 256) that is 1.2e9 multiply-adds, 42 µs at the full rate of an H100, against 46 µs for reading
// the tokens once in bfloat16: both matter, so the plan is to keep the loads for a multiply-add few.
//
// row_dots, C[m][n] = Σ_k A[m][k] B[n][k]: a warp takes kDotRows rows of A and kTile of B; its lanes share out k, four
// neighbouring values at a time, and keep 64 sums each. 20 loads feed 256 multiply-adds; B (74 KB of probe keys) stays
// in the L1 cache. Each step of the exchange that follows halves the sums that a lane is left with, 62 shuffles for 64
// sums of 32 lanes, two per cent of the work.
//
// row_sums, C[n][c] = Σ_r W(r, n) X[r][c]: a warp takes 128 columns, four a lane, for kTile values of n: 64 sums a
// lane. The warps of a block share out the rows and add up in order at the end. Weights go through shared memory in
// pieces of kPieceRows rows, from where 4 loads of 16 bytes, the same for all lanes, and one of X feed 64
// multiply-adds.
#pragma once

#include "cuda/activations.h"
#include "cuda/prim/barrier.h"
#include "cuda/prim/bounds.h"
#include "cuda/prim/launch.h"
#include "cuda/prim/shared_memory.h"
#include "cuda/prim/warp.h"

namespace siglip2::cuda {
namespace {

constexpr int kProductWarps = 4;
constexpr int kProductThreads = kProductWarps * kWarpSize;
constexpr int kTile = 16;       // values of n at a time
constexpr int kDotRows = 4;     // rows of A of a warp
constexpr int kSumColumns = 4;  // columns of a lane
constexpr int kSlab = kSumColumns * kWarpSize;
constexpr int kPieceRows = 32;

// Which dimension differs from batch to batch: batch b then has the elements [offsets[b], offsets[b + 1]) of it, which
// already says where they are, so that matrices with that dimension have no distance between batches.
enum class Ragged { kNone, kRows, kOutputs };

// C[b][m][n] = Σ_k A[b][m][k] B[b][n][k] + bias[b][m]. The ragged dimension may be m.
template <typename TA, typename TC>
struct RowDots {
  const TA* a;
  std::int64_t a_stride, a_batch;
  const float* b;
  std::int64_t b_stride, b_batch;
  TC* c;
  std::int64_t c_stride_m, c_stride_n, c_batch;
  const float* bias;  // null: none
  std::int64_t bias_batch;
  std::int64_t m, n, k;         // m: the most of a batch, when ragged
  const std::int32_t* offsets;  // device memory, batches + 1; null: not ragged
};

// One step of scatter_sums: gives half of kCount values to the lane `kCount / 4` away and adds what that one gives.
template <int kCount>
__device__ __forceinline__ void scatter_half(float* values) {
  constexpr int kHalf = kCount / 2;
  const bool upper = (lane_index() & (kHalf / 2)) != 0;
#pragma unroll
  for (int i = 0; i < kHalf; ++i) {
    const float given = upper ? values[i] : values[i + kHalf];
    const float kept = upper ? values[i + kHalf] : values[i];
    values[i] = kept + shuffle_xor(given, kHalf / 2);
  }
  if constexpr (kHalf > 2) scatter_half<kHalf>(values);
}

// Sums of 64 values over the lanes; lane l is left with those of values 2l and 2l + 1.
__device__ __forceinline__ void scatter_sums(float (&values)[64]) {
  scatter_half<64>(values);
}

template <typename TA, typename TC, int kValues>
__global__ void __launch_bounds__(kProductThreads)
    row_dots_kernel(RowDots<TA, TC> args, std::int64_t m_tiles, std::int64_t n_tiles) {
  const std::int64_t batch = std::int64_t{blockIdx.x} / (m_tiles * n_tiles);
  const std::int64_t tile = std::int64_t{blockIdx.x} % (m_tiles * n_tiles);
  const std::int64_t m_tile = tile / n_tiles * kProductWarps + warp_index(), n_first = tile % n_tiles * kTile;
  const std::int64_t start = args.offsets == nullptr ? 0 : args.offsets[batch];
  const std::int64_t m_count = args.offsets == nullptr ? args.m : args.offsets[batch + 1] - start;
  const std::int64_t m_first = m_tile * kDotRows;
  if (!in_bounds(m_first < m_count)) return;

  // Rows beyond the last are computed as the last one and not stored.
  const TA* a[kDotRows];
#pragma unroll
  for (int i = 0; i < kDotRows; ++i) {
    const std::int64_t row = in_bounds(m_first + i < m_count) ? m_first + i : m_count - 1;
    a[i] = args.a + batch * args.a_batch + (start + row) * args.a_stride;
  }
  const float* const b = args.b + batch * args.b_batch + n_first * args.b_stride;
  const int n_last = static_cast<int>(args.n - n_first < kTile ? args.n - n_first : kTile) - 1;
  const int b_stride = static_cast<int>(args.b_stride);
  float sums[kDotRows * kTile];
#pragma unroll
  for (float& sum : sums)
    sum = 0;
  for (std::int64_t k = lane_index() * kValues; k < args.k; k += kWarpSize * kValues) {
    float left[kDotRows][kValues];
#pragma unroll
    for (int i = 0; i < kDotRows; ++i)
      load_floats(a[i] + k, left[i]);
#pragma unroll
    for (int j = 0; j < kTile; ++j) {
      float right[kValues];
      load_floats(b + k + (in_bounds(j < n_last) ? j : n_last) * b_stride, right);
#pragma unroll
      for (int i = 0; i < kDotRows; ++i) {
#pragma unroll
        for (int v = 0; v < kValues; ++v)
          sums[i * kTile + j] = fmaf(left[i][v], right[v], sums[i * kTile + j]);
      }
    }
  }
  scatter_sums(sums);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int index = 2 * lane_index() + i;
    const std::int64_t row = m_first + index / kTile, column = n_first + index % kTile;
    const bool row_exists = in_bounds(row < m_count);
    const bool column_exists = in_bounds(column < args.n);
    if (row_exists && column_exists) {
      const float bias = args.bias == nullptr ? 0.0f : args.bias[batch * args.bias_batch + row];
      args.c[batch * args.c_batch + (start + row) * args.c_stride_m + column * args.c_stride_n] =
          from_float<TC>(sums[i] + bias);
    }
  }
}

// C[b][n][c] = Σ_r W[b](r, n) X[b][r][c], or added to C with `accumulate`. Rows from `first_rows` on are those of
// `second`, which is the same for all batches.
template <typename TW, typename TX, typename TC>
struct RowSums {
  const TW* weights;
  std::int64_t weight_stride_r, weight_stride_n, weight_batch;
  const TX* x;
  std::int64_t x_stride, x_batch;
  const TX* second;
  std::int64_t second_stride, first_rows;
  TC* c;
  std::int64_t c_stride, c_batch;
  bool accumulate;
  std::int64_t rows, n, columns;  // ragged rows: not used; ragged n: the most of a batch
  Ragged ragged;
  const std::int32_t* offsets;  // device memory, batches + 1; null: not ragged
};

constexpr std::size_t kRowSumsShared = (kPieceRows * kTile + kProductWarps * kTile * kSlab) * sizeof(float);

template <typename TW, typename TX, typename TC, bool kVectors>
__global__ void __launch_bounds__(kProductThreads)
    row_sums_kernel(RowSums<TW, TX, TC> args, std::int64_t slabs, std::int64_t n_tiles) {
  float* const piece = reinterpret_cast<float*>(shared_memory());  // [kPieceRows][kTile]
  float* const parts = piece + kPieceRows * kTile;                 // [kProductWarps][kTile][kSlab]
  const std::int64_t slab = std::int64_t{blockIdx.x} % slabs;
  const std::int64_t n_first = std::int64_t{blockIdx.x} / slabs % n_tiles * kTile;
  const std::int64_t batch = std::int64_t{blockIdx.x} / slabs / n_tiles;
  std::int64_t rows = args.rows, outputs = args.n, first_row = 0, first_output = 0;
  if (args.ragged == Ragged::kRows) {
    first_row = args.offsets[batch];
    rows = args.offsets[batch + 1] - first_row;
  }
  if (args.ragged == Ragged::kOutputs) {
    first_output = args.offsets[batch];
    outputs = args.offsets[batch + 1] - first_output;
  }
  if (n_first >= outputs) return;

  // The columns of a lane are neighbours where rows are read as vectors, else 32 apart.
  const auto column_of = [slab](int v) {
    return slab * kSlab + (kVectors ? lane_index() * kSumColumns + v : lane_index() + v * kWarpSize);
  };
  const TX* const x = args.x + batch * args.x_batch + first_row * args.x_stride;
  const TW* const weights = args.weights + batch * args.weight_batch + first_row * args.weight_stride_r +
                            (first_output + n_first) * args.weight_stride_n;

  float sums[kTile][kSumColumns];
#pragma unroll
  for (int j = 0; j < kTile; ++j) {
#pragma unroll
    for (int v = 0; v < kSumColumns; ++v)
      sums[j][v] = 0;
  }
  for (std::int64_t first = 0; first < rows; first += kPieceRows) {
    const int count = static_cast<int>(rows - first < kPieceRows ? rows - first : kPieceRows);
    if (first > 0) block_barrier();
    for (int i = static_cast<int>(threadIdx.x); i < count * kTile; i += kProductThreads) {
      float weight = 0;
      if (in_bounds(n_first + i % kTile < outputs)) {
        weight = to_float(weights[(first + i / kTile) * args.weight_stride_r + i % kTile * args.weight_stride_n]);
      }
      piece[i] = weight;
    }
    block_barrier();
    for (int r = warp_index(); r < count; r += kProductWarps) {
      const TX* const row = first + r < args.first_rows
                                ? x + (first + r) * args.x_stride
                                : args.second + (first + r - args.first_rows) * args.second_stride;
      float values[kSumColumns] = {};
      if constexpr (kVectors) {
        if (in_bounds(column_of(0) < args.columns)) load_floats(row + column_of(0), values);
      } else {
#pragma unroll
        for (int v = 0; v < kSumColumns; ++v) {
          if (in_bounds(column_of(v) < args.columns)) values[v] = to_float(row[column_of(v)]);
        }
      }
#pragma unroll
      for (int j = 0; j < kTile; j += 4) {
        const auto weight = load_vector<4>(piece + r * kTile + j);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
          for (int v = 0; v < kSumColumns; ++v)
            sums[j + i][v] = fmaf(weight[i], values[v], sums[j + i][v]);
        }
      }
    }
  }

#pragma unroll
  for (int j = 0; j < kTile; ++j)
    store_floats(parts + (warp_index() * kTile + j) * kSlab + lane_index() * kSumColumns, sums[j]);
  block_barrier();
  for (int j = warp_index(); j < kTile; j += kProductWarps) {
    const float* const part = parts + j * kSlab + lane_index() * kSumColumns;
    float total[kSumColumns], more[kSumColumns];
    load_floats(part, total);
#pragma unroll
    for (int warp = 1; warp < kProductWarps; ++warp) {
      load_floats(part + warp * kTile * kSlab, more);
#pragma unroll
      for (int v = 0; v < kSumColumns; ++v)
        total[v] += more[v];
    }
    TC* const target = args.c + batch * args.c_batch + (first_output + n_first + j) * args.c_stride;
    if (in_bounds(n_first + j < outputs)) {
      if constexpr (kVectors) {
        if (in_bounds(column_of(0) < args.columns)) {
          float old[kSumColumns] = {};
          if (args.accumulate) load_floats(target + column_of(0), old);
#pragma unroll
          for (int v = 0; v < kSumColumns; ++v)
            total[v] += old[v];
          store_floats(target + column_of(0), total);
        }
      } else {
#pragma unroll
        for (int v = 0; v < kSumColumns; ++v) {
          if (in_bounds(column_of(v) < args.columns)) {
            const float old = args.accumulate ? to_float(target[column_of(v)]) : 0.0f;
            target[column_of(v)] = from_float<TC>(total[v] + old);
          }
        }
      }
    }
  }
}

// Whether rows `stride` elements apart, in batches `batch` apart, can be read four values at a time.
template <typename T>
bool in_fours(const T* data, std::int64_t stride, std::int64_t batch = 0) {
  return rows_aligned(data, stride, sizeof(T), 4 * sizeof(T)) && batch % 4 == 0;
}

template <typename TA, typename TC>
void row_dots(OpContext& context, const char* name, const RowDots<TA, TC>& args, std::int64_t batches,
              std::initializer_list<Access> accesses) {
  const bool vectors =
      args.k % 4 == 0 && in_fours(args.a, args.a_stride, args.a_batch) && in_fours(args.b, args.b_stride, args.b_batch);
  constexpr std::int64_t kRows = kDotRows * kProductWarps;
  const std::int64_t m_tiles = (args.m + kRows - 1) / kRows, n_tiles = (args.n + kTile - 1) / kTile;
  launch(context, name, vectors ? row_dots_kernel<TA, TC, 4> : row_dots_kernel<TA, TC, 1>,
         {batches * m_tiles * n_tiles, kProductThreads}, accesses, args, m_tiles, n_tiles);
}

template <typename TW, typename TX, typename TC>
void row_sums(OpContext& context, const char* name, const RowSums<TW, TX, TC>& args, std::int64_t batches,
              std::initializer_list<Access> accesses) {
  const bool vectors = args.columns % 4 == 0 && in_fours(args.x, args.x_stride, args.x_batch) &&
                       in_fours(args.second, args.second_stride) && in_fours(args.c, args.c_stride, args.c_batch);
  const std::int64_t slabs = (args.columns + kSlab - 1) / kSlab, n_tiles = (args.n + kTile - 1) / kTile;
  launch(context, name, vectors ? row_sums_kernel<TW, TX, TC, true> : row_sums_kernel<TW, TX, TC, false>,
         {batches * slabs * n_tiles, kProductThreads, kRowSumsShared}, accesses, args, slabs, n_tiles);
}

}  // namespace
}  // namespace siglip2::cuda
