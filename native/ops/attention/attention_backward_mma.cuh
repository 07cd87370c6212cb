// Backward pass of attention in bfloat16 by the matrix instructions of sm_80. What the blocks compute is in
// attention_backward_work.cuh.
//
// Floor: 5 products of 2 · queries · keys · head_dim operations, 10 N² d a head; blocks of both kinds form S and dP for
// themselves, which makes 7. Bytes: 8 N d elements at least (read query, key, value, output and grad_output, write
// three gradients); here 9, as grad_output is also read for the statistics, and what L2 does not hold of the second
// reads. See docs/kernels/attention-backward.md.
//
// Plan: 4 warps a block (2 when every sequence fits them), each with kFragments · 16 resident rows of its own. Streamed
// rows come in tiles of kTile through two shared buffers by cp.async, one being filled while the other is used; one
// barrier a tile. A warp takes kStep streamed rows at a time: S and dP as [resident, streamed] products whose
// accumulators are, rounded to bfloat16, the A operands of the gradient products as they lie in registers, whichever
// side is resident: nothing of P or dS goes through shared memory. The A operands of S and dP (the resident rows) stay
// in registers where they fit (kKept), else they are read again for each step.
//
// Reads of shared memory are what limits the keys' blocks: with 16 resident rows a warp each product 16 × 8 × 16 takes
// 256 bytes, two cycles of a multiprocessor; 32 rows halve that for the gradients. With queries resident their A
// operands fit in registers as well, and all products take 128 bytes. Blocks of both kinds share a multiprocessor.
//
// head_dim 72 is exact: four products of depth 16 and one of depth 8, nine column tiles.
#pragma once

#include <type_traits>

#include "cuda/prim/async_copy.h"
#include "cuda/prim/barrier.h"
#include "cuda/prim/bounds.h"
#include "cuda/prim/launch.h"
#include "cuda/prim/math.h"
#include "cuda/prim/shared_memory.h"
#include "cuda/prim/vector.h"
#include "cuda/prim/warp.h"
#include "cuda/scratch.h"
#include "ops/attention/attention_backward_work.cuh"
#include "ops/attention/attention_tiles.cuh"

namespace siglip2::cuda::attention_backward {

inline constexpr int kMaxWarps = 4;

template <Resident kResidentSide, int kHeadDimension, int kFragmentCount, int kTileRows, int kStepRows, bool kKeepRows>
struct Tiling {
  static constexpr Resident kResident = kResidentSide;
  static constexpr bool kKeys = kResident == Resident::kKeys;
  static constexpr int kHeadDim = kHeadDimension;
  static constexpr int kFragments = kFragmentCount;  // of 16 resident rows, a warp
  static constexpr int kTile = kTileRows;            // streamed rows in a buffer
  static constexpr int kStep = kStepRows;            // streamed rows at a time
  static constexpr bool kKept = kKeepRows;           // A operands of S and dP stay in registers

  static constexpr int kWarpRows = 16 * kFragments;
  static constexpr int kChunks = TileRows<kHeadDim>::kChunks;  // of 16 bytes, a row
  static constexpr int kRow = TileRows<kHeadDim>::kStride;     // elements from row to row in shared memory
  static_assert(kStep % 16 == 0 && kTile % kStep == 0);
};

// How a head dimension is taken. Both kinds of blocks have the same resident rows and buffers.
template <int kHeadDim, int kFragments, int kTile, int kKeysStep, bool kKeysKept, int kQueriesStep, bool kQueriesKept>
struct Plan {
  using Keys = Tiling<Resident::kKeys, kHeadDim, kFragments, kTile, kKeysStep, kKeysKept>;
  using Queries = Tiling<Resident::kQueries, kHeadDim, kFragments, kTile, kQueriesStep, kQueriesKept>;

  static constexpr std::size_t shared_bytes(int warps) {
    return sizeof(bfloat16) * Keys::kRow * (2 * warps * Keys::kWarpRows + 4 * kTile) + 2 * kTile * sizeof(Statistic);
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

// The resident rows of a warp as A operands: in registers, or read when wanted.
template <typename Shape>
using ResidentFragments = std::conditional_t<Shape::kKept, RowFragments<Shape::kHeadDim, Shape::kFragments>,
                                             LoadRowFragments<Shape::kHeadDim>>;
template <typename Shape>
__device__ __forceinline__ ResidentFragments<Shape> resident_fragments(const bfloat16* rows) {
  ResidentFragments<Shape> fragments;
  if constexpr (Shape::kKept) {
    fragments.load(rows);
  } else {
    fragments.rows = rows;
  }
  return fragments;
}

template <typename Shape>
using Scores = float[Shape::kFragments][Shape::kStep / 8][4];
template <typename Shape>
using Gradient = float[Shape::kFragments][Shape::kChunks][4];

// gradient += weights · streamed, the weights rounded to bfloat16: they are the A operand as they lie in the registers
// of the product they came from. `rows` points at this lane's element of the step's first 16 rows.
template <typename Shape>
__device__ __forceinline__ void add_product(Gradient<Shape>& gradient, const Scores<Shape>& weights,
                                            const bfloat16* rows) {
#pragma unroll
  for (int k = 0; k < Shape::kStep / 16; ++k) {
    std::uint32_t rounded[Shape::kFragments][4];
#pragma unroll
    for (int f = 0; f < Shape::kFragments; ++f)
      pack_weights(rounded[f], weights[f][2 * k], weights[f][2 * k + 1]);
    multiply_weights_rows<Shape::kHeadDim, Shape::kFragments>(gradient, rounded, rows + k * 16 * Shape::kRow);
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

// Weights and slopes from S and dP, with the statistics of the step's streamed queries.
template <typename Shape>
__device__ __forceinline__ void form_weights(Scores<Shape>& weight, Scores<Shape>& slope, const Statistic* streamed,
                                             float exponent_scale) {
#pragma unroll
  for (int n = 0; n < Shape::kStep / 8; ++n) {
    // Of this lane's two columns.
    const auto pair = load_vector<4>(reinterpret_cast<const float*>(streamed + n * 8 + lane_index() % 4 * 2));
#pragma unroll
    for (int f = 0; f < Shape::kFragments; ++f) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        weight[f][n][e] = exp2_fast(fmaf(weight[f][n][e], exponent_scale, -pair[e % 2 * 2]));
        slope[f][n][e] = weight[f][n][e] * (slope[f][n][e] - pair[e % 2 * 2 + 1]);
      }
    }
  }
}

// The same with resident queries: this lane's rows are lane / 4 of each 8.
template <typename Shape>
__device__ __forceinline__ void form_weights(Scores<Shape>& weight, Scores<Shape>& slope,
                                             const Statistic (&resident)[Shape::kFragments][2], float exponent_scale) {
#pragma unroll
  for (int f = 0; f < Shape::kFragments; ++f) {
#pragma unroll
    for (int n = 0; n < Shape::kStep / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const Statistic& statistic = resident[f][e / 2];
        weight[f][n][e] = exp2_fast(fmaf(weight[f][n][e], exponent_scale, -statistic.log_sum_exp));
        slope[f][n][e] = weight[f][n][e] * (slope[f][n][e] - statistic.product);
      }
    }
  }
}

// Zero where a query does not attend to a key or there is no streamed row. `resident` and `streamed` are the positions
// of the first rows.
template <typename Shape>
__device__ __forceinline__ void mask_weights(Scores<Shape>& weight, Scores<Shape>& slope, int resident, int streamed,
                                             int streamed_rows, bool causal) {
#pragma unroll
  for (int f = 0; f < Shape::kFragments; ++f) {
#pragma unroll
    for (int n = 0; n < Shape::kStep / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int row = resident + f * 16 + e / 2 * 8 + lane_index() / 4;
        const int column = streamed + n * 8 + lane_index() % 4 * 2 + e % 2;
        if (!in_bounds(column < streamed_rows) || !attends<Shape::kResident>(row, column, causal)) {
          weight[f][n][e] = 0.0f;
          slope[f][n][e] = 0.0f;
        }
      }
    }
  }
}

// Finishes the gradients of an item's resident rows.
template <typename Shape>
__device__ __forceinline__ void finish_rows(const Operands<bfloat16>& operands, const WorkItem& item, int head) {
  constexpr bool kKeys = Shape::kKeys;
  const Roles<Shape::kResident, bfloat16> roles(operands, item, std::int64_t{head} * Shape::kHeadDim);
  const int lane = lane_index();
  const int rows = static_cast<int>(blockDim.x) / kWarpSize * Shape::kWarpRows;

  bfloat16* const resident1 = reinterpret_cast<bfloat16*>(shared_memory());
  bfloat16* const resident2 = resident1 + rows * Shape::kRow;
  bfloat16* const streamed1 = resident2 + rows * Shape::kRow;  // two buffers
  bfloat16* const streamed2 = streamed1 + 2 * Shape::kTile * Shape::kRow;
  Statistic* const streamed_statistics = reinterpret_cast<Statistic*>(streamed2 + 2 * Shape::kTile * Shape::kRow);

  const Statistic* const statistics = operands.statistics + head * operands.queries;
  const auto fetch = [&](int first, int buffer) {
    const int valid = item.streamed_rows - first;
    const int at = buffer * Shape::kTile * Shape::kRow;
    copy_rows<Shape>(streamed1 + at, roles.streamed1.from(first, 0), Shape::kTile, valid);
    copy_rows<Shape>(streamed2 + at, roles.streamed2.from(first, 0), Shape::kTile, valid);
    if constexpr (kKeys) {
      // Zeros for rows past the end: with zero rows of query and grad_output their weights 1 add nothing.
      for (int row = static_cast<int>(threadIdx.x); row < Shape::kTile; row += static_cast<int>(blockDim.x))
        async_copy_small<8>(streamed_statistics + buffer * Shape::kTile + row,
                            statistics + item.streamed_row + first + row, in_bounds(row < valid));
    }
    async_copy_commit();
  };

  // This warp's rows: in the tile, and in their sequence.
  const int warp_row = warp_index() * Shape::kWarpRows;
  const int position = item.resident_position + warp_row;
  const int valid_rows = item.resident_rows - warp_row;

  Gradient<Shape> gradient1 = {};
  Gradient<Shape> gradient2 = {};
  const Range range = visible_rows<Shape::kResident>(item, operands.causal, Shape::kTile);
  if (range.first < range.end) {
    copy_rows<Shape>(resident1, roles.resident1, rows, item.resident_rows);
    copy_rows<Shape>(resident2, roles.resident2, rows, item.resident_rows);
    fetch(range.first, 0);

    Statistic own[Shape::kFragments][2];
    if constexpr (!kKeys) {
#pragma unroll
      for (int f = 0; f < Shape::kFragments; ++f) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = f * 16 + half * 8 + lane / 4;
          own[f][half] = {0.0f, 0.0f};
          if (in_bounds(row < valid_rows)) own[f][half] = statistics[item.resident_row + warp_row + row];
        }
      }
    }

    const int rows_offset = fragment_rows_offset<Shape::kHeadDim>(lane);
    const int columns_offset = fragment_columns_offset<Shape::kHeadDim>(lane);
    async_copy_wait<0>();
    block_barrier();
    const auto left1 = resident_fragments<Shape>(resident1 + warp_row * Shape::kRow + rows_offset);
    const auto left2 = resident_fragments<Shape>(resident2 + warp_row * Shape::kRow + rows_offset);
    const float exponent_scale = operands.scale * kLog2E;  // weights are powers of 2

    int buffer = 0;
    for (int first = range.first; first < range.end; first += Shape::kTile) {
      if (first + Shape::kTile < range.end) fetch(first + Shape::kTile, 1 - buffer);
#pragma unroll 1
      for (int row = 0; row < Shape::kTile; row += Shape::kStep) {
        const int streamed = first + row;
        const bool nothing = valid_rows <= 0 || streamed >= range.end ||
                             (operands.causal &&
                              (kKeys ? position >= streamed + Shape::kStep : streamed >= position + Shape::kWarpRows));
        if (nothing) continue;
        const bfloat16* const rows1 = streamed1 + (buffer * Shape::kTile + row) * Shape::kRow;
        const bfloat16* const rows2 = streamed2 + (buffer * Shape::kTile + row) * Shape::kRow;
        constexpr int kGroups = Shape::kStep / 16;
        Scores<Shape> weight = {};
        Scores<Shape> slope = {};
        multiply_rows_columns<Shape::kHeadDim, Shape::kFragments, kGroups>(weight, rows1 + columns_offset,
                                                                           rows1 + rows_offset, kGroups, left1);
        multiply_rows_columns<Shape::kHeadDim, Shape::kFragments, kGroups>(slope, rows2 + columns_offset,
                                                                           rows2 + rows_offset, kGroups, left2);
        if constexpr (kKeys) {
          form_weights<Shape>(weight, slope, streamed_statistics + buffer * Shape::kTile + row, exponent_scale);
        } else {
          form_weights<Shape>(weight, slope, own, exponent_scale);
        }
        const bool masked = (!kKeys && streamed + Shape::kStep > range.end) ||
                            (operands.causal && (kKeys ? position + Shape::kWarpRows - 1 > streamed
                                                       : streamed + Shape::kStep - 1 > position));
        if (masked) mask_weights<Shape>(weight, slope, position, streamed, range.end, operands.causal);
        if constexpr (kKeys) add_product<Shape>(gradient2, weight, rows2 + rows_offset);
        add_product<Shape>(gradient1, slope, rows1 + rows_offset);
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
  store_rows<Shape>(roles.gradient1.from(warp_row, 0), staged1, valid_rows);
  if constexpr (kKeys) store_rows<Shape>(roles.gradient2.from(warp_row, 0), staged2, valid_rows);
}

template <typename Plan>
__global__ void __launch_bounds__(kMaxWarps* kWarpSize, 2) mma_kernel(const Operands<bfloat16> operands) {
  const WorkItem item = operands.items[blockIdx.x / static_cast<unsigned>(operands.heads)];
  const int head = static_cast<int>(blockIdx.x % static_cast<unsigned>(operands.heads));
  if (item.side == Resident::kKeys) {
    finish_rows<typename Plan::Keys>(operands, item, head);
  } else {
    finish_rows<typename Plan::Queries>(operands, item, head);
  }
}

template <typename Plan>
void start(OpContext& context, const AttentionBackwardArgs& args, const Statistic* statistics) {
  constexpr int kWarpRows = Plan::Keys::kWarpRows;
  std::int32_t longest = 0;
  for (std::int64_t s = 0; s < args.sequences; ++s) {
    longest = std::max(
        {longest, args.query_offsets[s + 1] - args.query_offsets[s], args.key_offsets[s + 1] - args.key_offsets[s]});
  }
  const int warps = longest <= kMaxWarps / 2 * kWarpRows ? kMaxWarps / 2 : kMaxWarps;

  Scratch scratch(context);
  const std::vector<WorkItem> items = list_work(args, warps * kWarpRows);
  const auto count = static_cast<std::int64_t>(items.size());
  const WorkItem* const uploaded = scratch.upload(items.data(), count);
  launch(context, "attention_backward", mma_kernel<Plan>,
         {count * args.heads, warps * kWarpSize, Plan::shared_bytes(warps)},
         {reads(args.query), reads(args.key), reads(args.value), reads(args.grad_output),
          reads(statistics, args.query.rows * args.heads), reads(uploaded, count), writes(args.grad_query),
          writes(args.grad_key), writes(args.grad_value)},
         operands_of<bfloat16>(args, statistics, uploaded));
}

}  // namespace siglip2::cuda::attention_backward
