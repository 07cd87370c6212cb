// Backward pass of attention in bfloat16 on tensor cores (sm_80: mma.sync, ldmatrix, cp.async). What the two kernels
// compute is in attention_backward_work.cuh.
//
// Floor: 5 products of 2 · queries · keys · head_dim operations are needed, 10 N² d a head; two kernels that each form S
// and dP for themselves take 7. Bytes: 8 N d elements at least (read Q, K, V, O, dO, write three gradients); here 13, the
// other reads of Q, K, V and dO being L2's for one sequence. See docs/kernels/attention-backward.md.
//
// Plan: 4 warps a block (2 when every sequence fits them), each with kFragments · 16 resident rows of its own. Streamed
// rows come in tiles of kTile through two shared buffers by cp.async, one being filled while the other is used; one barrier
// a tile. A warp takes kStep streamed rows at a time: S and dP as [resident, streamed] products whose accumulators are,
// rounded to bfloat16, the A operands of the gradient products as they lie in registers: nothing of P or dS goes through
// shared memory. A operands of S and dP (the resident rows) stay in registers where they fit (kKept), else they are read
// again for each step.
//
// A row in shared memory takes an odd number of 16-byte chunks, so that the 8 rows of an 8 × 8 matrix lie in distinct banks
// at every offset without a swizzle, and all addresses of a tile are one register plus constants. head_dim 72 is exact:
// four products of depth 16 and one of depth 8, nine column tiles.
#pragma once

#include "cuda/prim/async_copy.h"
#include "cuda/prim/barrier.h"
#include "cuda/prim/bounds.h"
#include "cuda/prim/launch.h"
#include "cuda/prim/math.h"
#include "cuda/prim/matrix.h"
#include "cuda/prim/shared_memory.h"
#include "cuda/prim/vector.h"
#include "cuda/prim/warp.h"
#include "cuda/scratch.h"
#include "ops/attention/attention_backward_work.cuh"

namespace siglip2::cuda::attention_backward {

inline constexpr int kMaxWarps = 4;

template <int kHeadDimension, Resident kResidentSide, int kFragmentCount, int kStepRows, int kTileRows, bool kKeepRows,
          int kBlocksPerMultiprocessor>
struct Tiling {
  static constexpr int kHeadDim = kHeadDimension;
  static constexpr Resident kResident = kResidentSide;
  static constexpr int kFragments = kFragmentCount;  // of 16 resident rows, a warp
  static constexpr int kStep = kStepRows;            // streamed rows at a time
  static constexpr int kTile = kTileRows;            // streamed rows in a buffer
  static constexpr bool kKept = kKeepRows;           // A operands of S and dP stay in registers
  static constexpr int kBlocks = kBlocksPerMultiprocessor;

  static constexpr int kWarpRows = 16 * kFragments;
  static constexpr int kChunks = kHeadDim / 8;      // of 16 bytes, a row
  static constexpr int kRow = (kChunks | 1) * 8;    // elements from row to row in shared memory
  static constexpr int kDepths = kHeadDim / 16;     // products of depth 16 over a row
  static constexpr bool kTail = kHeadDim % 16 != 0;  // and one of depth 8
  static_assert(kHeadDim % 8 == 0 && kStep % 16 == 0 && kTile % kStep == 0);

  static constexpr std::size_t shared_bytes(int warps) {
    return sizeof(bfloat16) * kRow * (2 * warps * kWarpRows + 4 * kTile) + 2 * kTile * sizeof(Statistic);
  }
};

// Copies `rows` rows (zeros for those from `valid` on) into shared memory; all threads of the block take part.
template <typename Shape>
__device__ __forceinline__ void copy_rows(bfloat16* to, Rows<const bfloat16> from, int rows, int valid) {
  const int threads = static_cast<int>(blockDim.x);
  int row = static_cast<int>(threadIdx.x) / Shape::kChunks;
  int chunk = static_cast<int>(threadIdx.x) % Shape::kChunks;
  while (row < rows) {
    async_copy_16(to + row * Shape::kRow + chunk * 8, from.data + row * from.stride + chunk * 8,
                  in_bounds(row < valid));
    row += threads / Shape::kChunks;
    chunk += threads % Shape::kChunks;
    if (chunk >= Shape::kChunks) {
      chunk -= Shape::kChunks;
      ++row;
    }
  }
}

// A operand of kFragments · 16 rows at depth 16 · `depth`; `rows` points at this lane's row and half.
template <typename Shape>
__device__ __forceinline__ void load_left(std::uint32_t (&left)[Shape::kFragments][4], const bfloat16* rows,
                                          int depth) {
#pragma unroll
  for (int f = 0; f < Shape::kFragments; ++f)
    load_matrices(left[f], rows + f * 16 * Shape::kRow + depth * 16);
}
template <typename Shape>
__device__ __forceinline__ void load_left_tail(std::uint32_t (&left)[Shape::kFragments][2], const bfloat16* rows) {
#pragma unroll
  for (int f = 0; f < Shape::kFragments; ++f)
    load_matrices(left[f], rows + f * 16 * Shape::kRow + Shape::kDepths * 16);
}

// The resident rows of a warp as A operands: in registers, or read when wanted.
template <typename Shape, bool kKept>
struct ResidentRows {
  std::uint32_t kept[Shape::kDepths][Shape::kFragments][4];
  std::uint32_t kept_tail[Shape::kFragments][2];

  __device__ __forceinline__ explicit ResidentRows(const bfloat16* rows) {
#pragma unroll
    for (int depth = 0; depth < Shape::kDepths; ++depth)
      load_left<Shape>(kept[depth], rows, depth);
    if constexpr (Shape::kTail) load_left_tail<Shape>(kept_tail, rows);
  }
  template <typename Body>
  __device__ __forceinline__ void at(int depth, Body&& body) const {
    body(kept[depth]);
  }
  template <typename Body>
  __device__ __forceinline__ void at_tail(Body&& body) const {
    body(kept_tail);
  }
};
template <typename Shape>
struct ResidentRows<Shape, false> {
  const bfloat16* rows;

  __device__ __forceinline__ explicit ResidentRows(const bfloat16* shared_rows) : rows(shared_rows) {}
  template <typename Body>
  __device__ __forceinline__ void at(int depth, Body&& body) const {
    std::uint32_t left[Shape::kFragments][4];
    load_left<Shape>(left, rows, depth);
    body(left);
  }
  template <typename Body>
  __device__ __forceinline__ void at_tail(Body&& body) const {
    std::uint32_t left[Shape::kFragments][2];
    load_left_tail<Shape>(left, rows);
    body(left);
  }
};

template <typename Shape>
using Scores = float[Shape::kFragments][Shape::kStep / 8][4];
template <typename Shape>
using Gradient = float[Shape::kFragments][Shape::kChunks][4];
// A operands of the gradient products: kStep streamed rows deep.
template <typename Shape>
using Weights = std::uint32_t[Shape::kFragments][Shape::kStep / 16][4];

// scores = resident · streamedᵀ. `by_rows` points at this lane's row and half of the step's first 16 streamed rows.
template <typename Shape>
__device__ __forceinline__ void multiply_rows(Scores<Shape>& scores, const ResidentRows<Shape, Shape::kKept>& resident,
                                              const bfloat16* by_rows) {
#pragma unroll
  for (int f = 0; f < Shape::kFragments; ++f) {
#pragma unroll
    for (int n = 0; n < Shape::kStep / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e)
        scores[f][n][e] = 0.0f;
    }
  }
#pragma unroll
  for (int depth = 0; depth < Shape::kDepths; ++depth) {
    resident.at(depth, [&](const std::uint32_t (&left)[Shape::kFragments][4]) {
#pragma unroll
      for (int n = 0; n < Shape::kStep / 8; n += 2) {
        std::uint32_t loaded[4];
        load_matrices(loaded, by_rows + n * 8 * Shape::kRow + depth * 16);
        const std::uint32_t right[2][2] = {{loaded[0], loaded[1]}, {loaded[2], loaded[3]}};
#pragma unroll
        for (int f = 0; f < Shape::kFragments; ++f) {
          multiply_16x8x16(scores[f][n], left[f], right[0]);
          multiply_16x8x16(scores[f][n + 1], left[f], right[1]);
        }
      }
    });
  }
  if constexpr (Shape::kTail) {
    // Two matrices instead of four: rows 0 to 7 and 8 to 15, which lanes 0 to 15 address.
    const int lane = lane_index();
    const bfloat16* const tail = by_rows + ((lane % 16 / 8 - lane / 16) * Shape::kRow - lane % 16 / 8) * 8;
    resident.at_tail([&](const std::uint32_t (&left)[Shape::kFragments][2]) {
#pragma unroll
      for (int n = 0; n < Shape::kStep / 8; n += 2) {
        std::uint32_t loaded[2];
        load_matrices(loaded, tail + n * 8 * Shape::kRow + Shape::kDepths * 16);
        const std::uint32_t right[2][1] = {{loaded[0]}, {loaded[1]}};
#pragma unroll
        for (int f = 0; f < Shape::kFragments; ++f) {
          multiply_16x8x8(scores[f][n], left[f], right[0]);
          multiply_16x8x8(scores[f][n + 1], left[f], right[1]);
        }
      }
    });
  }
}

// gradient += weights · streamed. `by_columns` points at this lane's row and column half of the step's first 16 rows.
template <typename Shape>
__device__ __forceinline__ void add_product(Gradient<Shape>& gradient, const Weights<Shape>& weights,
                                            const bfloat16* by_columns) {
#pragma unroll
  for (int k = 0; k < Shape::kStep / 16; ++k) {
    const bfloat16* const rows = by_columns + k * 16 * Shape::kRow;
#pragma unroll
    for (int c = 0; c + 1 < Shape::kChunks; c += 2) {
      std::uint32_t loaded[4];
      load_matrices<4, true>(loaded, rows + c * 8);
      const std::uint32_t right[2][2] = {{loaded[0], loaded[1]}, {loaded[2], loaded[3]}};
#pragma unroll
      for (int f = 0; f < Shape::kFragments; ++f) {
        multiply_16x8x16(gradient[f][c], weights[f][k], right[0]);
        multiply_16x8x16(gradient[f][c + 1], weights[f][k], right[1]);
      }
    }
    if constexpr (Shape::kChunks % 2 != 0) {
      std::uint32_t right[2];
      // Lanes 16 to 31 address nothing here, but some valid row.
      load_matrices<2, true>(right, rows + (Shape::kChunks - 1 - lane_index() / 16) * 8);
#pragma unroll
      for (int f = 0; f < Shape::kFragments; ++f)
        multiply_16x8x16(gradient[f][Shape::kChunks - 1], weights[f][k], right);
    }
  }
}

// An accumulator of S or dP, rounded, as the A operand of the gradient products.
template <typename Shape>
__device__ __forceinline__ void round_weights(Weights<Shape>& weights, const Scores<Shape>& scores) {
#pragma unroll
  for (int f = 0; f < Shape::kFragments; ++f) {
#pragma unroll
    for (int n = 0; n < Shape::kStep / 8; ++n) {
      weights[f][n / 2][n % 2 * 2] = pack_bfloat16(scores[f][n][0], scores[f][n][1]);
      weights[f][n / 2][n % 2 * 2 + 1] = pack_bfloat16(scores[f][n][2], scores[f][n][3]);
    }
  }
}

// Rounds the warp's part of a gradient into its resident rows, which nobody needs any more.
template <typename Shape>
__device__ __forceinline__ void stage_gradient(bfloat16* warp_rows, const Gradient<Shape>& gradient, float factor) {
  const int lane = lane_index();
#pragma unroll
  for (int f = 0; f < Shape::kFragments; ++f) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      bfloat16* const row = warp_rows + (f * 16 + half * 8 + lane / 4) * Shape::kRow + lane % 4 * 2;
#pragma unroll
      for (int c = 0; c < Shape::kChunks; ++c) {
        const std::uint32_t pair =
            pack_bfloat16(gradient[f][c][2 * half] * factor, gradient[f][c][2 * half + 1] * factor);
        store_vector(row + c * 8, Vector<bfloat16, 2>{{unpack_first(pair), unpack_second(pair)}});
      }
    }
  }
}

template <typename Shape>
__device__ __forceinline__ void store_rows(Rows<bfloat16> to, const bfloat16* warp_rows, int valid) {
  for (int index = lane_index(); index < Shape::kWarpRows * Shape::kChunks; index += kWarpSize) {
    const int row = index / Shape::kChunks;
    const int column = index % Shape::kChunks * 8;
    if (in_bounds(row < valid))
      store_vector(to.data + row * to.stride + column, load_vector<8>(warp_rows + row * Shape::kRow + column));
  }
}

template <typename Shape>
__global__ void __launch_bounds__(kMaxWarps* kWarpSize, Shape::kBlocks)
    bfloat16_kernel(const Operands<bfloat16> operands) {
  constexpr bool kKeys = Shape::kResident == Resident::kKeys;
  const WorkItem item = operands.items[blockIdx.x / static_cast<unsigned>(operands.heads)];
  const int head = static_cast<int>(blockIdx.x % static_cast<unsigned>(operands.heads));
  const std::int64_t column = std::int64_t{head} * Shape::kHeadDim;
  const int lane = lane_index();
  const int warps = static_cast<int>(blockDim.x) / kWarpSize;

  bfloat16* const resident1 = reinterpret_cast<bfloat16*>(shared_memory());
  bfloat16* const resident2 = resident1 + warps * Shape::kWarpRows * Shape::kRow;
  bfloat16* const streamed1 = resident2 + warps * Shape::kWarpRows * Shape::kRow;  // two buffers
  bfloat16* const streamed2 = streamed1 + 2 * Shape::kTile * Shape::kRow;
  Statistic* const streamed_statistics = reinterpret_cast<Statistic*>(streamed2 + 2 * Shape::kTile * Shape::kRow);

  const auto rows_from = [&](const Rows<const bfloat16>& rows, int first) {
    return Rows<const bfloat16>{rows.data + first * rows.stride + column, rows.stride};
  };
  const Statistic* const statistics = operands.statistics + head * operands.queries;
  const auto fetch = [&](int first, int buffer) {
    const int valid = item.streamed_rows - first;
    const int at = buffer * Shape::kTile * Shape::kRow;
    copy_rows<Shape>(streamed1 + at, rows_from(operands.streamed1, item.streamed_row + first), Shape::kTile, valid);
    copy_rows<Shape>(streamed2 + at, rows_from(operands.streamed2, item.streamed_row + first), Shape::kTile, valid);
    if constexpr (kKeys) {
      // Zeros for rows past the end: with zero rows of query and grad_output their weights 1 add nothing.
      for (int row = static_cast<int>(threadIdx.x); row < Shape::kTile; row += static_cast<int>(blockDim.x))
        async_copy_small<8>(streamed_statistics + buffer * Shape::kTile + row,
                            statistics + item.streamed_row + first + row, in_bounds(row < valid));
    }
    async_copy_commit();
  };

  // This warp's rows: of the tile, and in their sequence.
  const int warp_row = warp_index() * Shape::kWarpRows;
  const int position = item.resident_position + warp_row;
  const int valid_rows = item.resident_rows - warp_row;

  Gradient<Shape> gradient1 = {};
  Gradient<Shape> gradient2 = {};
  const Range range = visible_rows<Shape::kResident>(item, operands.causal, Shape::kTile);
  if (range.first < range.end) {
    copy_rows<Shape>(resident1, rows_from(operands.resident1, item.resident_row), warps * Shape::kWarpRows,
                     item.resident_rows);
    copy_rows<Shape>(resident2, rows_from(operands.resident2, item.resident_row), warps * Shape::kWarpRows,
                     item.resident_rows);
    fetch(range.first, 0);

    // Of the resident rows, where those are queries: lane / 4 of each 8.
    Statistic own[Shape::kFragments][2];
    if constexpr (!kKeys) {
#pragma unroll
      for (int f = 0; f < Shape::kFragments; ++f) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = warp_row + f * 16 + half * 8 + lane / 4;
          own[f][half] = {0.0f, 0.0f};
          if (in_bounds(row < item.resident_rows)) own[f][half] = statistics[item.resident_row + row];
        }
      }
    }

    // Where lanes point for matrices in the order of A operands (or of transposed B operands), and of B operands.
    const int by_columns = lane % 16 * Shape::kRow + lane / 16 * 8;
    const int by_rows = (lane / 16 * 8 + lane % 8) * Shape::kRow + lane / 8 % 2 * 8;
    async_copy_wait<0>();
    block_barrier();
    const ResidentRows<Shape, Shape::kKept> left1(resident1 + warp_row * Shape::kRow + by_columns);
    const ResidentRows<Shape, Shape::kKept> left2(resident2 + warp_row * Shape::kRow + by_columns);
    const float exponent_scale = operands.scale * 1.4426950408889634f;  // weights are powers of 2

    int buffer = 0;
    for (int first = range.first; first < range.end; first += Shape::kTile) {
      if (first + Shape::kTile < range.end) fetch(first + Shape::kTile, 1 - buffer);
      const bfloat16* const tile1 = streamed1 + buffer * Shape::kTile * Shape::kRow;
      const bfloat16* const tile2 = streamed2 + buffer * Shape::kTile * Shape::kRow;
#pragma unroll 1
      for (int row = 0; row < Shape::kTile; row += Shape::kStep) {
        const int streamed = first + row;
        const bool nothing = valid_rows <= 0 || streamed >= range.end ||
                             (operands.causal && (kKeys ? position >= streamed + Shape::kStep
                                                        : streamed >= position + Shape::kWarpRows));
        if (nothing) continue;
        Scores<Shape> weight;
        Scores<Shape> slope;
        multiply_rows<Shape>(weight, left1, tile1 + row * Shape::kRow + by_rows);
        multiply_rows<Shape>(slope, left2, tile2 + row * Shape::kRow + by_rows);
#pragma unroll
        for (int n = 0; n < Shape::kStep / 8; ++n) {
          Vector<float, 4> pair;  // statistics of this lane's two columns
          if constexpr (kKeys) {
            pair = load_vector<4>(reinterpret_cast<const float*>(streamed_statistics + buffer * Shape::kTile + row +
                                                                 n * 8 + lane % 4 * 2));
          }
#pragma unroll
          for (int f = 0; f < Shape::kFragments; ++f) {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
              const float log_sum_exp = kKeys ? pair[e % 2 * 2] : own[f][e / 2].log_sum_exp;
              const float product = kKeys ? pair[e % 2 * 2 + 1] : own[f][e / 2].product;
              weight[f][n][e] = exp2_fast(fmaf(weight[f][n][e], exponent_scale, -log_sum_exp));
              slope[f][n][e] = weight[f][n][e] * (slope[f][n][e] - product);
            }
          }
        }
        const bool masked = (!kKeys && streamed + Shape::kStep > item.streamed_rows) ||
                            (operands.causal && (kKeys ? position + Shape::kWarpRows - 1 > streamed
                                                       : streamed + Shape::kStep - 1 > position));
        if (masked) {
#pragma unroll
          for (int f = 0; f < Shape::kFragments; ++f) {
#pragma unroll
            for (int n = 0; n < Shape::kStep / 8; ++n) {
#pragma unroll
              for (int e = 0; e < 4; ++e) {
                const int own_row = position + f * 16 + e / 2 * 8 + lane / 4;
                const int other_row = streamed + n * 8 + lane % 4 * 2 + e % 2;
                if (other_row >= item.streamed_rows ||
                    !attends<Shape::kResident>(own_row, other_row, operands.causal)) {
                  weight[f][n][e] = 0.0f;
                  slope[f][n][e] = 0.0f;
                }
              }
            }
          }
        }
        Weights<Shape> rounded;
        if constexpr (kKeys) {
          round_weights<Shape>(rounded, weight);
          add_product<Shape>(gradient2, rounded, tile2 + row * Shape::kRow + by_columns);
        }
        round_weights<Shape>(rounded, slope);
        add_product<Shape>(gradient1, rounded, tile1 + row * Shape::kRow + by_columns);
      }
      // The next tile has landed, and nobody reads this one any more.
      async_copy_wait<0>();
      block_barrier();
      buffer = 1 - buffer;
    }
  }

  bfloat16* const staged1 = resident1 + warp_row * Shape::kRow;
  bfloat16* const staged2 = resident2 + warp_row * Shape::kRow;
  stage_gradient<Shape>(staged1, gradient1, operands.scale);
  if constexpr (kKeys) stage_gradient<Shape>(staged2, gradient2, 1.0f);
  warp_barrier();
  const std::int64_t first_row = item.resident_row + warp_row;
  store_rows<Shape>({operands.gradient1.data + first_row * operands.gradient1.stride + column,
                     operands.gradient1.stride},
                    staged1, valid_rows);
  if constexpr (kKeys) {
    store_rows<Shape>({operands.gradient2.data + first_row * operands.gradient2.stride + column,
                       operands.gradient2.stride},
                      staged2, valid_rows);
  }
}

template <typename Shape>
void start_bfloat16(OpContext& context, const AttentionBackwardArgs& args, const Statistic* statistics) {
  constexpr bool kKeys = Shape::kResident == Resident::kKeys;
  const std::int32_t* const offsets = kKeys ? args.key_offsets : args.query_offsets;
  std::int32_t longest = 0;
  for (std::int64_t s = 0; s < args.sequences; ++s)
    longest = std::max(longest, offsets[s + 1] - offsets[s]);
  const int warps = longest <= kMaxWarps / 2 * Shape::kWarpRows ? kMaxWarps / 2 : kMaxWarps;

  Scratch scratch(context);
  const std::vector<WorkItem> items = list_work<Shape::kResident>(args, warps * Shape::kWarpRows);
  const auto count = static_cast<std::int64_t>(items.size());
  const WorkItem* const uploaded = scratch.upload(items.data(), count);
  const MatrixView absent{};
  launch(context, kKeys ? "attention_backward_keys" : "attention_backward_queries", bfloat16_kernel<Shape>,
         {count * args.heads, warps * kWarpSize, Shape::shared_bytes(warps)},
         {reads(args.query), reads(args.key), reads(args.value), reads(args.grad_output),
          reads(statistics, args.query.rows * args.heads), reads(uploaded, count),
          writes(kKeys ? args.grad_key : args.grad_query), writes(kKeys ? args.grad_value : absent)},
         operands_of<Shape::kResident, bfloat16>(args, statistics, uploaded));
}

}  // namespace siglip2::cuda::attention_backward
