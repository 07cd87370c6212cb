// Attention in bfloat16 by the matrix instructions of sm_80, forward.
//
// Floor: 4·N²·d operations and 2·4·N·d bytes a head: below about 370 tokens memory is the limit on an H200 (790
// TFLOP/s, 4.3 TB/s), above it the matrix units; the exponentials (N² a head) are close behind for d = 64.
//
// Plan (FlashAttention with an online softmax, arXiv 2307.08691): a block is four warps and takes one head of one
// stretch of queries, 16·kRowTiles a warp; keys and values come 64 at a time through a ring in shared memory that
// cp.async fills ahead. Scores never leave registers: those of a warp, rounded to bfloat16, are the A operand of the
// second product.
//
// - Two row tiles a warp (128 queries a block) halve what a product reads from shared memory: with one, ldmatrix alone
//   would take two cycles of an SM for a product that the matrix units of sm_90 can do in about 1.6. It takes most of
//   the registers, so two blocks fit an SM. Short sequences (64 queries) get one row tile, and more blocks.
// - Queries lie behind two stages of keys at first. Where registers allow they go there and their place is a third
//   stage; otherwise (d ≥ 80 with two row tiles) they stay. d = 128 has two stages for want of shared memory.
// - d = 72 is exact: four steps of 16 and one of 8 for the scores, nine column tiles for the values.
// - A step of the softmax is 64 keys; for d = 96, whose accumulators leave no room for as many scores, 32.
// - The last step of keys is computed in groups of 16 keys, only as many as there are, and so is the step on the
//   diagonal of causal attention; steps beyond it are skipped by each warp.
// - Exponentials of a group of 16 keys stand next to the products of the group before, which use other units.
//   They are 2^(s·c − m·c) with c = scale·log2(e): one FFMA and one ex2 each. Sums are rescaled only where a
//   maximum grows by more than 2^8; till then weights above 1 are as exact as those below.
// - The output leaves through shared memory as 16-byte chunks of rows.
//
// What a row's result is depends on its sequence alone: tiles of keys count from the sequence's start, and the kernel
// with one row tile and that with two do the same sums in the same order.
#pragma once

#include <cmath>

#include "cuda/prim/barrier.h"
#include "cuda/prim/math.h"
#include "cuda/prim/shared_memory.h"
#include "cuda/prim/vector.h"
#include "ops/attention/attention_tiles.cuh"

namespace siglip2::cuda {

// Pointers and strides of a launch.
struct AttentionForwardParameters {
  const AttentionWork* work;
  const bfloat16* query;
  const bfloat16* key;
  const bfloat16* value;
  bfloat16* output;
  float* log_sum_exp;                          // may be null
  int query_stride, key_stride, value_stride;  // see kMaxTileStride
  std::int64_t output_stride, log_sum_exp_stride;
  int heads;
  int query_stage;  // where in the ring the queries lie at first
  bool causal;
  float scale_log2;  // scale · log2(e), above 0
  float tolerance;   // growth of a maximum that is let pass: 8 / scale_log2
};

inline constexpr int kForwardThreads = 128;
inline constexpr int kForwardKeys = 64;  // of a tile

template <int kHeadDim, int kRowTiles>
struct ForwardShape {
  using Rows = TileRows<kHeadDim>;
  static constexpr int kWarpRows = 16 * kRowTiles;
  static constexpr int kQueries = kForwardThreads / kWarpSize * kWarpRows;
  // Whether accumulators and query fragments fit beside 32·kRowTiles scores.
  static constexpr bool kQueryInRegisters = kRowTiles * (kHeadDim / 2 + kHeadDim / 4) <= 108;
  // Keys between two looks at the maximum, the same for both numbers of row tiles.
  static constexpr int kStepKeys = kHeadDim == 96 ? 32 : 64;
  static constexpr int kKeyElements = kForwardKeys * Rows::kStride;
  static constexpr int kStageElements = 2 * kKeyElements;
  static constexpr int kQueryElements = kQueries * Rows::kStride;
  static_assert(kQueryElements <= kStageElements);
  // Three if the queries leave theirs and 99 KB, which every chip has, hold them.
  static constexpr int kStages = kQueryInRegisters && 3 * kStageElements * sizeof(bfloat16) <= 99 * 1024 ? 3 : 2;
  static_assert((2 * kStageElements + kQueryElements) * sizeof(bfloat16) <= 99 * 1024);
  // Blocks that an SM is to hold: 168 registers a thread for three, 255 for two.
  static constexpr int kBlocks = kRowTiles == 1 && kHeadDim <= 96 ? 3 : 2;

  // The queries' stage and the bytes of shared memory when no query has more than `tiles` tiles of keys.
  static int query_stage(std::int64_t tiles) { return tiles <= 1 ? 1 : 2; }
  static std::size_t shared_bytes(std::int64_t tiles) {
    const int elements =
        tiles > 2 && kStages == 3 ? 3 * kStageElements : query_stage(tiles) * kStageElements + kQueryElements;
    return static_cast<std::size_t>(elements) * sizeof(bfloat16);
  }
};

// The state of a warp's rows: of each row tile, rows lane / 4 and lane / 4 + 8.
template <int kHeadDim, int kRowTiles>
struct ForwardState {
  float output[kRowTiles][kHeadDim / 8][4];
  float maximum[kRowTiles][2];  // of the scores, not scaled, when sums were last rescaled
  float sum[kRowTiles][2];      // this lane's part
};

// Scores of columns that a row does not see become −∞. `column` is this lane's first in the tile; its first row sees
// `first_visible` keys, and those below one more each, if there are that many.
template <int kRowTiles, int kColumnTiles>
__device__ __forceinline__ void mask_scores(float (&scores)[kRowTiles][kColumnTiles][4], int column, int first_visible,
                                            int keys) {
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int visible = std::min(first_visible + r * 16 + i / 2 * 8, keys);
        if (!in_bounds(column + n * 8 + i % 2 < visible)) scores[r][n][i] = -INFINITY;
      }
    }
  }
}

// Raises the maxima of rows whose scores have outgrown them, with sums and outputs; offset = −maximum · scale.
template <int kHeadDim, int kRowTiles, int kColumnTiles>
__device__ __forceinline__ void raise_maximum(const float (&scores)[kRowTiles][kColumnTiles][4],
                                              ForwardState<kHeadDim, kRowTiles>& state, float scale_log2,
                                              float tolerance, float (&offset)[kRowTiles][2]) {
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
    float most[2] = {scores[r][0][0], scores[r][0][2]};
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        most[i / 2] = fmaxf(most[i / 2], scores[r][n][i]);
    }
    bool grown[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      most[half] = row_maximum(most[half]);
      grown[half] = most[half] > state.maximum[r][half] + tolerance;
    }
    // Rows that have not grown are multiplied by 1, so that which rows share a warp changes nothing.
    if (ballot(grown[0] || grown[1]) != 0) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float factor = grown[half] ? exp2_fast((state.maximum[r][half] - most[half]) * scale_log2) : 1.0f;
        if (grown[half]) state.maximum[r][half] = most[half];
        state.sum[r][half] *= factor;
#pragma unroll
        for (int n = 0; n < kHeadDim / 8; ++n) {
          state.output[r][n][2 * half] *= factor;
          state.output[r][n][2 * half + 1] *= factor;
        }
      }
    }
    // A row that has seen only −∞ so far keeps weights of 0.
#pragma unroll
    for (int half = 0; half < 2; ++half)
      offset[r][half] = state.maximum[r][half] == -INFINITY ? 0.0f : -state.maximum[r][half] * scale_log2;
  }
}

// What a warp needs to meet tiles of keys.
struct ForwardWarp {
  int keys;            // seen by any row of its 32-row stretch; 0: the warp has no rows
  int keys_of_all;     // seen by each row
  int first_visible;   // by this lane's first row
  int rows_offset;     // fragment_rows_offset
  int columns_offset;  // fragment_columns_offset
};

// One step of keys, of which the first `groups` groups of 16 are computed.
template <int kHeadDim, int kRowTiles, bool kMasked, typename LoadRows>
__device__ __forceinline__ void attend_step(const bfloat16* keys, const bfloat16* values, int first_key, int groups,
                                            const AttentionForwardParameters& parameters, const ForwardWarp& warp,
                                            const LoadRows& load_query, ForwardState<kHeadDim, kRowTiles>& state) {
  constexpr int kGroups = ForwardShape<kHeadDim, kRowTiles>::kStepKeys / 16;
  float scores[kRowTiles][2 * kGroups][4] = {};
  multiply_rows_columns<kHeadDim, kRowTiles, kGroups>(scores, keys + warp.columns_offset, keys + warp.rows_offset,
                                                      groups, load_query);
  if constexpr (kMasked) {
    mask_scores(scores, first_key + lane_index() % 4 * 2, warp.first_visible, warp.keys);
  }
  float offset[kRowTiles][2];
  raise_maximum(scores, state, parameters.scale_log2, parameters.tolerance, offset);
  // Group by group, so that exponentials of one go on beside products of another.
#pragma unroll
  for (int group = 0; group < kGroups; ++group) {
    if (group >= groups) continue;
    std::uint32_t weights[kRowTiles][4];
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int n = 2 * group; n < 2 * group + 2; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          scores[r][n][i] = exp2_fast(fmaf(scores[r][n][i], parameters.scale_log2, offset[r][i / 2]));
          state.sum[r][i / 2] += scores[r][n][i];
        }
      }
      pack_weights(weights[r], scores[r][2 * group], scores[r][2 * group + 1]);
    }
    multiply_weights_rows<kHeadDim, kRowTiles>(state.output, weights,
                                               values + warp.rows_offset + group * 16 * TileRows<kHeadDim>::kStride);
  }
}

// Loads all keys of a block's work through the ring and attends to them.
template <int kHeadDim, int kRowTiles>
__device__ __forceinline__ void attend_keys(const AttentionForwardParameters& parameters, const AttentionWork& work,
                                            int head, bfloat16* ring, const ForwardWarp& warp,
                                            ForwardState<kHeadDim, kRowTiles>& state) {
  using Shape = ForwardShape<kHeadDim, kRowTiles>;
  const int thread = static_cast<int>(threadIdx.x);
  const std::int64_t column = std::int64_t{head} * kHeadDim;
  const bfloat16* key = parameters.key + std::int64_t{work.first_key} * parameters.key_stride + column;
  const bfloat16* value = parameters.value + std::int64_t{work.first_key} * parameters.value_stride + column;
  bfloat16* const queries = ring + parameters.query_stage * Shape::kStageElements;

  const auto load_tile = [&](int first_key, int stage_index) {
    if (in_bounds(first_key < work.keys)) {
      bfloat16* const stage = ring + stage_index * Shape::kStageElements;
      const int rows = work.keys - first_key;
      copy_rows_async<kHeadDim, kForwardKeys, kForwardThreads>(
          stage, key + std::int64_t{first_key} * parameters.key_stride, parameters.key_stride, rows, thread);
      copy_rows_async<kHeadDim, kForwardKeys, kForwardThreads>(
          stage + Shape::kKeyElements, value + std::int64_t{first_key} * parameters.value_stride,
          parameters.value_stride, rows, thread);
    }
    async_copy_commit();
  };

  copy_rows_async<kHeadDim, Shape::kQueries, kForwardThreads>(
      queries, parameters.query + std::int64_t{work.first_query} * parameters.query_stride + column,
      parameters.query_stride, work.queries, thread);
#pragma unroll
  for (int stage = 0; stage + 1 < Shape::kStages; ++stage)
    load_tile(stage * kForwardKeys, stage);

  const bfloat16* const warp_rows = queries + warp_index() * Shape::kWarpRows * Shape::Rows::kStride + warp.rows_offset;
  const auto attend = [&](const auto& load_query) {
    const auto attend_from = [&](const bfloat16* keys, int step) {
      if (step + Shape::kStepKeys <= warp.keys_of_all) {
        attend_step<kHeadDim, kRowTiles, false>(keys, keys + Shape::kKeyElements, step, Shape::kStepKeys / 16,
                                                parameters, warp, load_query, state);
      } else if (step < warp.keys) {
        attend_step<kHeadDim, kRowTiles, true>(keys, keys + Shape::kKeyElements, step, (warp.keys - step + 15) / 16,
                                               parameters, warp, load_query, state);
      }
    };
    int stage = 0;
    for (int first_key = 0; first_key < work.keys; first_key += kForwardKeys) {
      async_copy_wait<Shape::kStages - 2>();
      block_barrier();  // all copies of this tile are seen, and nobody reads the stage before it any more
      load_tile(first_key + (Shape::kStages - 1) * kForwardKeys, stage == 0 ? Shape::kStages - 1 : stage - 1);
      const bfloat16* keys = ring + stage * Shape::kStageElements;
      stage = stage + 1 == Shape::kStages ? 0 : stage + 1;
      attend_from(keys, first_key);
      if constexpr (Shape::kStepKeys < kForwardKeys)
        attend_from(keys + Shape::kStepKeys * Shape::Rows::kStride, first_key + Shape::kStepKeys);
    }
  };
  if constexpr (Shape::kQueryInRegisters) {
    RowFragments<kHeadDim, kRowTiles> fragments;
    async_copy_wait<Shape::kStages - 2>();
    block_barrier();
    fragments.load(warp_rows);
    attend(fragments);
  } else {
    attend(LoadRowFragments<kHeadDim>{warp_rows});
  }
}

// Writes a warp's rows by way of `stage`, shared memory of its own.
template <int kHeadDim, int kRowTiles>
__device__ __forceinline__ void write_output(const AttentionForwardParameters& parameters, bfloat16* stage,
                                             ForwardState<kHeadDim, kRowTiles>& state) {
  using Shape = ForwardShape<kHeadDim, kRowTiles>;
  using Rows = TileRows<kHeadDim>;
  // Read again rather than kept in registers over all keys.
  const AttentionWork work = parameters.work[blockIdx.x / parameters.heads];
  const int head = static_cast<int>(blockIdx.x % parameters.heads);
  const int lane = lane_index();
  const int warp_row = warp_index() * Shape::kWarpRows;
  const int rows = work.queries - warp_row;
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = r * 16 + half * 8 + lane / 4;
      const float total = row_sum(state.sum[r][half]);
      const float inverse = total == 0 ? 0.0f : 1.0f / total;
#pragma unroll
      for (int n = 0; n < kHeadDim / 8; ++n) {
        const std::uint32_t pair =
            pack_bfloat16(state.output[r][n][2 * half] * inverse, state.output[r][n][2 * half + 1] * inverse);
        store_vector(stage + row * Rows::kStride + n * 8 + lane % 4 * 2,
                     Vector<bfloat16, 2>{{unpack_first(pair), unpack_second(pair)}});
      }
      if (parameters.log_sum_exp != nullptr && lane % 4 == 0 && in_bounds(row < rows)) {
        parameters.log_sum_exp[(work.first_query + warp_row + row) * parameters.log_sum_exp_stride + head] =
            total == 0 ? -INFINITY : state.maximum[r][half] * parameters.scale_log2 * kLn2 + logf(total);
      }
    }
  }
  warp_barrier();
  bfloat16* const output =
      parameters.output + (work.first_query + warp_row) * parameters.output_stride + std::int64_t{head} * kHeadDim;
  for (int i = lane; i < Shape::kWarpRows * Rows::kChunks; i += kWarpSize) {
    const int row = i / Rows::kChunks;
    const int chunk = i % Rows::kChunks;
    if (in_bounds(row < rows)) {
      store_vector(output + row * parameters.output_stride + chunk * 8,
                   load_vector<8>(stage + row * Rows::kStride + chunk * 8));
    }
  }
}

template <int kHeadDim, int kRowTiles>
__global__ void __launch_bounds__(kForwardThreads, ForwardShape<kHeadDim, kRowTiles>::kBlocks)
    attention_forward_kernel(AttentionForwardParameters parameters) {
  using Shape = ForwardShape<kHeadDim, kRowTiles>;
  const AttentionWork work = parameters.work[blockIdx.x / parameters.heads];
  if (work.queries == 0) return;
  const int head = static_cast<int>(blockIdx.x % parameters.heads);
  bfloat16* const ring = reinterpret_cast<bfloat16*>(shared_memory());
  const int lane = lane_index();
  const int warp_row = warp_index() * Shape::kWarpRows;

  ForwardState<kHeadDim, kRowTiles> state;
  ForwardWarp warp;
  const int first = work.position + warp_row;
  // With one row tile as with two, groups of keys are those that a stretch of 32 queries sees.
  const int stretch = parameters.causal ? std::min(work.keys, (first | 31) + 1) : work.keys;
  warp.keys = warp_row < work.queries ? stretch : 0;
  warp.keys_of_all = std::min(warp.keys, parameters.causal ? first + 1 : work.keys);
  // Without a mask the rows' own limits are beyond the keys.
  warp.first_visible = parameters.causal ? first + lane / 4 + 1 : work.keys;
  warp.rows_offset = fragment_rows_offset<kHeadDim>(lane);
  warp.columns_offset = fragment_columns_offset<kHeadDim>(lane);
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      state.maximum[r][half] = -INFINITY;
      state.sum[r][half] = 0;
    }
#pragma unroll
    for (int n = 0; n < kHeadDim / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        state.output[r][n][i] = 0;
    }
  }
  if (work.keys > 0) {
    attend_keys<kHeadDim, kRowTiles>(parameters, work, head, ring, warp, state);
    block_barrier();  // the ring is nobody's any more
  }
  write_output<kHeadDim, kRowTiles>(parameters, ring + warp_row * Shape::Rows::kStride, state);
}

}  // namespace siglip2::cuda
