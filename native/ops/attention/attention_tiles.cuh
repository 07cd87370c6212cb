// What the attention kernels share: lists of work, tiles of rows in shared memory, and fragments of them for matrix
// instructions.
//
// A tile holds bfloat16 rows of one head, 16 bytes a chunk. Rows are an odd number of chunks apart, so that the eight
// rows that one phase of ldmatrix reads lie in different banks, as do eight neighbouring chunks that cp.async writes.
// An odd distance does what an exclusive-or swizzle would do, and the address of a fragment is one register plus a
// constant, which a swizzled one is not; a head of 72 needs no padding for it (nine chunks), others one chunk a row.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cuda/prim/async_copy.h"
#include "cuda/prim/bfloat16.h"
#include "cuda/prim/bounds.h"
#include "cuda/prim/matrix.h"
#include "cuda/prim/warp.h"
#include "ops/attention/attention.h"

namespace siglip2::cuda {

inline constexpr float kLog2E = 1.44269504088896340736f;
inline constexpr float kLn2 = 0.693147180559945309417f;

// A part of one sequence's rows, and what of the other side it meets. Heads are not listed: blocks of all heads of an
// item are neighbours in the grid, because their rows share sectors of memory.
struct AttentionWork {
  std::int32_t first_query;  // row of the matrix
  std::int32_t queries;
  std::int32_t first_key;  // row of the matrix
  std::int32_t keys;
  std::int32_t position;  // of the item's first row in its sequence
};

// Tiles of `tile_rows` queries with the keys that any of them sees, longest first, so that the last blocks to finish
// are short ones. Tiles without keys are listed too: their output is 0. Where lengths have a bound the list has as many
// entries as the rows could make in that many sequences; what is left over has no queries, and its blocks nothing to
// do.
inline std::vector<AttentionWork> query_work(const AttentionInputs& args, int tile_rows) {
  std::vector<AttentionWork> work;
  for (std::int64_t s = 0; s < args.sequences; ++s) {
    const std::int32_t queries = args.query_offsets[s + 1] - args.query_offsets[s];
    const std::int32_t keys = args.key_offsets[s + 1] - args.key_offsets[s];
    for (std::int32_t first = 0; first < queries; first += tile_rows) {
      const std::int32_t rows = std::min(tile_rows, queries - first);
      work.push_back({args.query_offsets[s] + first, rows, args.key_offsets[s],
                      args.causal ? std::min(keys, first + rows) : keys, first});
    }
  }
  std::stable_sort(work.begin(), work.end(),
                   [](const AttentionWork& a, const AttentionWork& b) { return a.keys > b.keys; });
  if (args.length_bound > 0)
    work.resize(static_cast<std::size_t>(args.query.rows / tile_rows + args.sequences), AttentionWork{});
  return work;
}

// The most keys that a query meets, or their bound.
inline std::int64_t most_keys(const AttentionInputs& args, const std::vector<AttentionWork>& work) {
  return args.length_bound > 0 ? args.length_bound : work.front().keys;
}

// How rows of one head lie in a tile.
template <int kHeadDim>
struct TileRows {
  static_assert(kHeadDim % 8 == 0);
  static constexpr int kChunks = kHeadDim / 8;
  static constexpr int kStride = (kChunks | 1) * 8;  // elements from row to row
};

// The largest distance between rows that copy_rows_async takes, in elements; 32 bits save registers.
inline constexpr std::int64_t kMaxTileStride = std::int64_t{1} << 24;

// Starts copying rows [0, valid_rows) of `source` into a tile of kRows rows, zeros into its other rows. The threads of
// a block (`thread` of kThreads) each keep to one chunk of every kRowsPerPass-th row: no division in the loop.
// `source` must be 16-byte aligned, and so must its rows.
template <int kHeadDim, int kRows, int kThreads>
__device__ __forceinline__ void copy_rows_async(bfloat16* tile, const bfloat16* source, int stride, int valid_rows,
                                                int thread) {
  using Rows = TileRows<kHeadDim>;
  constexpr int kRowsPerPass = kThreads / Rows::kChunks;
  static_assert(kRowsPerPass > 0);
  const int first = thread / Rows::kChunks;
  const int chunk = thread % Rows::kChunks;
  if (!in_bounds(first < kRowsPerPass)) return;
  bfloat16* to = tile + first * Rows::kStride + chunk * 8;
  const bfloat16* from = source + first * stride + chunk * 8;
#pragma unroll
  for (int pass = 0; pass < kRows; pass += kRowsPerPass) {
    const int row = pass + first;
    if (pass + kRowsPerPass <= kRows || in_bounds(row < kRows)) {
      async_copy_16(to, from, in_bounds(row < valid_rows));
    }
    to += kRowsPerPass * Rows::kStride;
    from += kRowsPerPass * stride;
  }
}

// Element of a tile that this lane's address points at for fragments with 16 rows: A operands [row][k], and, loaded
// transposed, B operands [k][column]. Lanes 16 to 31 take the second chunk of eight columns.
template <int kHeadDim>
__device__ __forceinline__ int fragment_rows_offset(int lane) {
  return lane % 16 * TileRows<kHeadDim>::kStride + lane / 16 * 8;
}
// The same for B operands from rows that are their columns, [column][k]: 16 columns, 16 of k.
template <int kHeadDim>
__device__ __forceinline__ int fragment_columns_offset(int lane) {
  return (lane / 16 * 8 + lane % 8) * TileRows<kHeadDim>::kStride + lane / 8 % 2 * 8;
}

// scores += rows · columnsᵀ over the head dimension, for kRowTiles tiles of 16 rows and the first `groups` groups of 16
// columns (two accumulator tiles each). `load_rows(r, chunk, a)` gives the A fragment of row tile r and chunks chunk,
// chunk + 1 (four registers) or of the last of an odd number of chunks (two). `columns` points at the address of this
// lane for group 0 (fragment_columns_offset), `columns_tail` at the one of fragment_rows_offset.
template <int kHeadDim, int kRowTiles, int kGroups, typename LoadRows>
__device__ __forceinline__ void multiply_rows_columns(float (&scores)[kRowTiles][2 * kGroups][4],
                                                      const bfloat16* columns, const bfloat16* columns_tail, int groups,
                                                      const LoadRows& load_rows) {
  using Rows = TileRows<kHeadDim>;
#pragma unroll
  for (int chunk = 0; chunk + 1 < Rows::kChunks; chunk += 2) {
    std::uint32_t a[kRowTiles][4];
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r)
      load_rows(r, chunk, a[r]);
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      if (group >= groups) continue;
      std::uint32_t b[4];
      load_matrices(b, columns + group * 16 * Rows::kStride + chunk * 8);
      const std::uint32_t first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
        multiply_16x8x16(scores[r][2 * group], a[r], first);
        multiply_16x8x16(scores[r][2 * group + 1], a[r], second);
      }
    }
  }
  if constexpr (Rows::kChunks % 2 == 1) {
    constexpr int kLast = Rows::kChunks - 1;
    std::uint32_t a[kRowTiles][2];
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r)
      load_rows(r, kLast, a[r]);
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      if (group >= groups) continue;
      std::uint32_t b[2];
      load_matrices(b, columns_tail + group * 16 * Rows::kStride + kLast * 8);
      const std::uint32_t first[1] = {b[0]}, second[1] = {b[1]};
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
        multiply_16x8x8(scores[r][2 * group], a[r], first);
        multiply_16x8x8(scores[r][2 * group + 1], a[r], second);
      }
    }
  }
}

// Loads the A fragments of rows in a tile for multiply_rows_columns; `rows` points at this lane's address for the first
// row tile (fragment_rows_offset).
template <int kHeadDim>
struct LoadRowFragments {
  const bfloat16* rows;
  template <int kRegisters>
  __device__ __forceinline__ void operator()(int row_tile, int chunk, std::uint32_t (&a)[kRegisters]) const {
    load_matrices(a, rows + row_tile * 16 * TileRows<kHeadDim>::kStride + chunk * 8);
  }
};

// The same fragments, kept in registers.
template <int kHeadDim, int kRowTiles>
struct RowFragments {
  static constexpr int kChunks = TileRows<kHeadDim>::kChunks;
  std::uint32_t whole[kRowTiles][kChunks / 2][4];
  std::uint32_t tail[kRowTiles][2];

  __device__ __forceinline__ void load(const bfloat16* rows) {
    const LoadRowFragments<kHeadDim> load_rows{rows};
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int i = 0; i < kChunks / 2; ++i)
        load_rows(r, 2 * i, whole[r][i]);
      if constexpr (kChunks % 2 == 1) load_rows(r, kChunks - 1, tail[r]);
    }
  }
  __device__ __forceinline__ void operator()(int row_tile, int chunk, std::uint32_t (&a)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      a[i] = whole[row_tile][chunk / 2][i];
  }
  __device__ __forceinline__ void operator()(int row_tile, int, std::uint32_t (&a)[2]) const {
    a[0] = tail[row_tile][0];
    a[1] = tail[row_tile][1];
  }
};

// sums += weights · rows, for kRowTiles tiles of 16 weights' rows and 16 rows of a tile, over the columns of the head
// (column tiles of eight). `rows` points at this lane's element (fragment_rows_offset).
template <int kHeadDim, int kRowTiles>
__device__ __forceinline__ void multiply_weights_rows(float (&sums)[kRowTiles][kHeadDim / 8][4],
                                                      const std::uint32_t (&weights)[kRowTiles][4],
                                                      const bfloat16* rows) {
  constexpr int kChunks = TileRows<kHeadDim>::kChunks;
#pragma unroll
  for (int chunk = 0; chunk + 1 < kChunks; chunk += 2) {
    std::uint32_t b[4];
    load_matrices<4, true>(b, rows + chunk * 8);
    const std::uint32_t b_first[2] = {b[0], b[1]}, b_second[2] = {b[2], b[3]};
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
      multiply_16x8x16(sums[r][chunk], weights[r], b_first);
      multiply_16x8x16(sums[r][chunk + 1], weights[r], b_second);
    }
  }
  if constexpr (kChunks % 2 == 1) {
    std::uint32_t b[2];
    load_matrices<2, true>(b, rows + (kChunks - 1) * 8);
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r)
      multiply_16x8x16(sums[r][kChunks - 1], weights[r], b);
  }
}

// The A operand of 16 rows and 16 columns out of two neighbouring accumulator tiles: the layouts agree.
__device__ __forceinline__ void pack_weights(std::uint32_t (&a)[4], const float (&first)[4], const float (&second)[4]) {
  a[0] = pack_bfloat16(first[0], first[1]);
  a[1] = pack_bfloat16(first[2], first[3]);
  a[2] = pack_bfloat16(second[0], second[1]);
  a[3] = pack_bfloat16(second[2], second[3]);
}

// Maximum and sum over the four lanes that hold one row of an accumulator tile. NaN is no maximum.
__device__ __forceinline__ float row_maximum(float value) {
  value = fmaxf(value, shuffle_xor(value, 1));
  return fmaxf(value, shuffle_xor(value, 2));
}
__device__ __forceinline__ float row_sum(float value) {
  value += shuffle_xor(value, 1);
  return value + shuffle_xor(value, 2);
}

}  // namespace siglip2::cuda
