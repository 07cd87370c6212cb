// Products of bfloat16 matrices with float32 sums, on tensor cores (sm_80): the kernel of cuda/matrix_product.cuh.
//
// Plan: a block owns a tile of the result, 128 × 128 with 8 warps or 64 × 64 with 4, and walks the depth in slabs of
// 32. Slabs of both operands come by cp.async into a ring of three, two of them under way while one is multiplied, with
// one barrier a slab. A warp owns 64 × 32 (32 × 32) of the tile: a slab is two steps of 4 (2) × 4 matrix instructions
// m16n8k16, whose operands ldmatrix fetches without bank conflicts. 128 × 128: 64 accumulators, below 128 registers, 48
// KB of shared memory: two blocks a multiprocessor on every chip from sm_80 on. A tile reads (128 + 128) · 2 bytes for
// 128 · 128 multiply-adds: 32 a byte from L2, and blocks run over the result in bands of eight tiles of rows, so that
// a wave's operands stay there. The sum over depth runs in order in steps of 16, in every tile alike: a row gives the
// same bits whatever the tile and the other rows.
//
// Sums leave in rows of eight: the four lanes that share a row exchange what they hold, so that each has eight
// neighbouring columns, the same ones for all its rows.
#pragma once

#include "cuda/matrix_epilogue.cuh"
#include "cuda/matrix_operand.cuh"
#include "cuda/prim/barrier.h"
#include "cuda/prim/matrix.h"
#include "cuda/prim/shared_memory.h"
#include "cuda/prim/warp.h"

namespace siglip2::cuda {

// The tiles of a product, and its part of the depth for each blockIdx.y.
struct ProductGrid {
  std::int64_t depth;
  std::int64_t part_depth;  // a multiple of 32
  std::int64_t tile_rows;   // how many tiles
  std::int64_t tile_columns;
};

// Tiles in bands of kBand tile rows, down the columns of a band.
template <int kRows, int kColumns>
__device__ __forceinline__ BlockPosition position_of_block(const ProductGrid& grid) {
  constexpr std::int64_t kBand = 8;
  const std::int64_t index = blockIdx.x;
  const std::int64_t first = index / (kBand * grid.tile_columns) * kBand;
  const std::int64_t within = index % (kBand * grid.tile_columns);
  const std::int64_t height = grid.tile_rows - first < kBand ? grid.tile_rows - first : kBand;
  return {(first + within % height) * kRows, within / height * kColumns, index, blockIdx.y};
}

template <int kRowsOfTile, int kColumnsOfTile, int kRowWarps, int kColumnWarps>
struct TensorShape {
  static constexpr int kRows = kRowsOfTile, kColumns = kColumnsOfTile;
  static constexpr int kDepth = 32, kStages = 3;
  static constexpr int kWarpRows = kRows / kRowWarps, kWarpColumns = kColumns / kColumnWarps;
  static constexpr int kColumnWarpCount = kColumnWarps;
  static constexpr int kThreads = kRowWarps * kColumnWarps * kWarpSize;
  static constexpr int kBlocks = 512 / kThreads;  // of a multiprocessor
  static constexpr std::size_t kSharedBytes = kStages * (kRows + kColumns) * kDepth * sizeof(bfloat16);
  static_assert(kWarpColumns == 32);
};
using LargeTensorShape = TensorShape<128, 128, 2, 4>;
using SmallTensorShape = TensorShape<64, 64, 2, 2>;

// Fragments of 16 rows by 16 deep of the left operand, at `row` and `depth` of the tile.
template <typename Tile, bool kTransposed>
__device__ __forceinline__ void load_left(std::uint32_t (&fragment)[4], const bfloat16* tile, int row, int depth) {
  const int lane = lane_index();
  if constexpr (kTransposed) {
    load_matrices<4, true>(fragment, tile + Tile::offset(depth + lane % 8 + lane / 16 * 8, row / 8 + lane / 8 % 2));
  } else {
    load_matrices(fragment, tile + Tile::offset(row + lane % 16, depth / 8 + lane / 16));
  }
}

// Fragments of 16 columns by 16 deep of the right operand: registers 0, 1 for the first eight columns, 2, 3 for the
// others.
template <typename Tile, bool kTransposed>
__device__ __forceinline__ void load_right(std::uint32_t (&fragment)[4], const bfloat16* tile, int column, int depth) {
  const int lane = lane_index();
  if constexpr (kTransposed) {
    load_matrices<4, true>(fragment, tile + Tile::offset(depth + lane % 16, column / 8 + lane / 16));
  } else {
    load_matrices(fragment, tile + Tile::offset(column + lane % 8 + lane / 16 * 8, depth / 8 + lane / 8 % 2));
  }
}

// Lane t of the four that share a row holds columns 2t, 2t + 1 of four groups of eight; afterwards all of group t.
__device__ __forceinline__ void gather_group(float (&values)[8]) {
#pragma unroll
  for (int mask = 1; mask <= 2; mask *= 2) {
    const bool upper = (lane_index() & mask) != 0;
#pragma unroll
    for (int group = 0; group < 4; ++group) {
      if ((group & mask) != 0) continue;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float& low = values[2 * group + i];
        float& high = values[2 * (group | mask) + i];
        const float received = shuffle_xor(upper ? low : high, mask);
        (upper ? low : high) = received;
      }
    }
  }
}

template <typename Shape, bool kATransposed, bool kBTransposed, bool kAligned, typename Epilogue>
__global__ void __launch_bounds__(Shape::kThreads, kAligned ? Shape::kBlocks : 1)
    tensor_product_kernel(ProductGrid grid, Operand<bfloat16> a, Operand<bfloat16> b, Epilogue epilogue) {
  using ATile = TensorTile<Shape::kRows, Shape::kDepth, kATransposed>;
  using BTile = TensorTile<Shape::kColumns, Shape::kDepth, kBTransposed>;
  constexpr int kStageElements = ATile::kElements + BTile::kElements;
  constexpr int kRowSteps = Shape::kWarpRows / 16, kColumnSteps = Shape::kWarpColumns / 8;
  bfloat16* const stages = reinterpret_cast<bfloat16*>(shared_memory());

  const BlockPosition position = position_of_block<Shape::kRows, Shape::kColumns>(grid);
  const std::int64_t first_depth = position.part * grid.part_depth;
  const std::int64_t depth_left = grid.depth - first_depth;
  const std::int64_t depth = depth_left < grid.part_depth ? depth_left : grid.part_depth;
  const int slabs = static_cast<int>((depth + Shape::kDepth - 1) / Shape::kDepth);
  const TensorTileLoader<Shape::kRows, Shape::kDepth, Shape::kThreads, kATransposed, kAligned> a_loader(
      a, position.first_row);
  const TensorTileLoader<Shape::kColumns, Shape::kDepth, Shape::kThreads, kBTransposed, kAligned> b_loader(
      b, position.first_column);
  const auto load_slab = [&](int slab) {
    if (in_bounds(slab < slabs)) {
      bfloat16* const stage = stages + slab % Shape::kStages * kStageElements;
      a_loader.load(stage, first_depth + slab * Shape::kDepth);
      b_loader.load(stage + ATile::kElements, first_depth + slab * Shape::kDepth);
    }
    async_copy_commit();
  };

  const int warp_row = warp_index() / Shape::kColumnWarpCount * Shape::kWarpRows;
  const int warp_column = warp_index() % Shape::kColumnWarpCount * Shape::kWarpColumns;
  float sums[kRowSteps][kColumnSteps][4] = {};

#pragma unroll
  for (int slab = 0; slab < Shape::kStages - 1; ++slab)
    load_slab(slab);
  for (int slab = 0; slab < slabs; ++slab) {
    async_copy_wait<Shape::kStages - 2>();
    block_barrier();
    load_slab(slab + Shape::kStages - 1);
    const bfloat16* const a_tile = stages + slab % Shape::kStages * kStageElements;
    const bfloat16* const b_tile = a_tile + ATile::kElements;
#pragma unroll
    for (int k = 0; k < Shape::kDepth; k += 16) {
      std::uint32_t left[kRowSteps][4], right[kColumnSteps / 2][4];
#pragma unroll
      for (int i = 0; i < kRowSteps; ++i)
        load_left<ATile, kATransposed>(left[i], a_tile, warp_row + 16 * i, k);
#pragma unroll
      for (int j = 0; j < kColumnSteps / 2; ++j)
        load_right<BTile, kBTransposed>(right[j], b_tile, warp_column + 16 * j, k);
#pragma unroll
      for (int i = 0; i < kRowSteps; ++i) {
#pragma unroll
        for (int j = 0; j < kColumnSteps; ++j)
          multiply_16x8x16(sums[i][j], left[i], {right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]});
      }
    }
  }

  epilogue.start(position);
  const int lane = lane_index();
  const std::int64_t column = position.first_column + warp_column + lane % 4 * 8;
  const auto columns = epilogue.template columns<8>(column);
#pragma unroll
  for (int i = 0; i < kRowSteps; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float values[8];
#pragma unroll
      for (int j = 0; j < kColumnSteps; ++j) {
        values[2 * j] = sums[i][j][2 * half];
        values[2 * j + 1] = sums[i][j][2 * half + 1];
      }
      gather_group(values);
      epilogue.row(columns, position.first_row + warp_row + 16 * i + 8 * half + lane / 4, column, values);
    }
  }
  epilogue.finish(shared_memory());
}

}  // namespace siglip2::cuda
