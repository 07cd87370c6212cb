// Products of float32 matrices on the ordinary units: the kernel of cuda/matrix_product.cuh.
//
// Plan: a block owns a tile of the result and walks the depth in slabs of 16, which cp.async brings into a ring of two.
// Shared memory holds depth as lines, whichever way the operand is stored, so that a thread reads four neighbouring
// rows or columns at once; a thread owns 8 × 8 of a tile of 128 × 128 (256 threads, 64 multiply-adds for four reads of
// 16 bytes) or 8 × 4 of a tile of 64 × 64 (128 threads).
//
// Accuracy: sums run in float32 over short stretches of the depth, which are then added to a second sum: the error
// grows with the root of the number of stretches, not of the depth. Stretches are the same for every tile, so a row
// gives the same bits whatever the tile and the other rows.
#pragma once

#include "cuda/matrix_product_tensor.cuh"

namespace siglip2::cuda {

// Second sums. FloatSums: float32, over stretches of 64. PairSums: as good as double precision, two float32 whose
// second is what the first lacks, over stretches of a power of two that the caller chooses.
template <int kRows, int kColumns>
struct FloatSums {
  static constexpr bool kShortStretches = false;
  using Value = float;

  __device__ __forceinline__ void add(int i, int j, float part) { sums[i][j] += part; }
  __device__ __forceinline__ Value value(int i, int j) const { return sums[i][j]; }

  float sums[kRows][kColumns] = {};
};

template <int kRows, int kColumns>
struct PairSums {
  static constexpr bool kShortStretches = true;
  using Value = double;

  __device__ __forceinline__ void add(int i, int j, float part) {
    const float before = high[i][j];
    const float after = before + part;
    const float added = after - before;
    low[i][j] += (before - (after - added)) + (part - added);
    high[i][j] = after;
  }
  __device__ __forceinline__ Value value(int i, int j) const {
    return static_cast<double>(high[i][j]) + static_cast<double>(low[i][j]);
  }

  float high[kRows][kColumns] = {};
  float low[kRows][kColumns] = {};
};

inline constexpr int kFloatStretch = 64;

template <int kRowsOfTile, int kColumnsOfTile, int kThreadRowsOfTile, int kThreadColumnsOfTile>
struct FloatShape {
  static constexpr int kRows = kRowsOfTile, kColumns = kColumnsOfTile;
  static constexpr int kDepth = 16, kStages = 2;
  static constexpr int kThreadRows = kThreadRowsOfTile, kThreadColumns = kThreadColumnsOfTile;
  static constexpr int kRowThreads = kRows / kThreadRows, kColumnThreads = kColumns / kThreadColumns;
  static constexpr int kThreads = kRowThreads * kColumnThreads;
  static constexpr std::size_t kSharedBytes = kStages * (kRows + 4 + kColumns + 4) * kDepth * sizeof(float);
};
using LargeFloatShape = FloatShape<128, 128, 8, 8>;
using SmallFloatShape = FloatShape<64, 64, 8, 4>;

template <typename Shape, bool kATransposed, bool kBTransposed, template <int, int> typename Sums, typename Epilogue>
__global__ void __launch_bounds__(Shape::kThreads)
    float_product_kernel(ProductGrid grid, Operand<float> a, Operand<float> b, int stretch, Epilogue epilogue) {
  using ATile = FloatTile<Shape::kRows, Shape::kDepth, Shape::kThreads, kATransposed>;
  using BTile = FloatTile<Shape::kColumns, Shape::kDepth, Shape::kThreads, kBTransposed>;
  constexpr int kStageElements = ATile::kElements + BTile::kElements;
  using SumsOfThread = Sums<Shape::kThreadRows, Shape::kThreadColumns>;
  float* const stages = reinterpret_cast<float*>(shared_memory());

  const BlockPosition position = position_of_block<Shape::kRows, Shape::kColumns>(grid);
  const std::int64_t first_depth = position.part * grid.part_depth;
  const std::int64_t depth_left = grid.depth - first_depth;
  const std::int64_t depth = depth_left < grid.part_depth ? depth_left : grid.part_depth;
  const int slabs = static_cast<int>((depth + Shape::kDepth - 1) / Shape::kDepth);
  const auto load_slab = [&](int slab) {
    if (in_bounds(slab < slabs)) {
      float* const stage = stages + slab % Shape::kStages * kStageElements;
      ATile::load(stage, a, position.first_row, first_depth + slab * Shape::kDepth);
      BTile::load(stage + ATile::kElements, b, position.first_column, first_depth + slab * Shape::kDepth);
    }
    async_copy_commit();
  };

  // A thread's rows are groups of four, and its columns too: group i begins at 4 · (thread + threads · i).
  const int thread_row = static_cast<int>(threadIdx.x) / Shape::kColumnThreads * 4;
  const int thread_column = static_cast<int>(threadIdx.x) % Shape::kColumnThreads * 4;
  constexpr int kRowGroupStep = Shape::kRowThreads * 4, kColumnGroupStep = Shape::kColumnThreads * 4;
  SumsOfThread sums;
  float parts[Shape::kThreadRows][Shape::kThreadColumns] = {};
  const auto multiply = [&](const float* a_line, const float* b_line) {
    Vector<float, 4> left[Shape::kThreadRows / 4], right[Shape::kThreadColumns / 4];
#pragma unroll
    for (int i = 0; i < Shape::kThreadRows / 4; ++i)
      left[i] = load_vector<4>(a_line + thread_row + i * kRowGroupStep);
#pragma unroll
    for (int j = 0; j < Shape::kThreadColumns / 4; ++j)
      right[j] = load_vector<4>(b_line + thread_column + j * kColumnGroupStep);
#pragma unroll
    for (int i = 0; i < Shape::kThreadRows; ++i) {
#pragma unroll
      for (int j = 0; j < Shape::kThreadColumns; ++j)
        parts[i][j] += left[i / 4][i % 4] * right[j / 4][j % 4];
    }
  };
  const auto end_stretch = [&] {
#pragma unroll
    for (int i = 0; i < Shape::kThreadRows; ++i) {
#pragma unroll
      for (int j = 0; j < Shape::kThreadColumns; ++j) {
        sums.add(i, j, parts[i][j]);
        parts[i][j] = 0;
      }
    }
  };

  load_slab(0);
  for (int slab = 0; slab < slabs; ++slab) {
    async_copy_wait<0>();
    block_barrier();
    load_slab(slab + 1);
    const float* const a_tile = stages + slab % Shape::kStages * kStageElements;
    const float* const b_tile = a_tile + ATile::kElements;
    if (SumsOfThread::kShortStretches && stretch < Shape::kDepth) {
#pragma unroll 1
      for (int k = 0; k < Shape::kDepth; ++k) {
        multiply(a_tile + k * ATile::kLine, b_tile + k * BTile::kLine);
        if ((k + 1) % stretch == 0) end_stretch();
      }
    } else {
#pragma unroll
      for (int k = 0; k < Shape::kDepth; ++k)
        multiply(a_tile + k * ATile::kLine, b_tile + k * BTile::kLine);
      if ((slab + 1) * Shape::kDepth % stretch == 0) end_stretch();
    }
  }
  end_stretch();

  epilogue.start(position);
#pragma unroll
  for (int j = 0; j < Shape::kThreadColumns; j += 4) {
    const std::int64_t column = position.first_column + thread_column + j / 4 * kColumnGroupStep;
    const auto columns = epilogue.template columns<4>(column);
#pragma unroll
    for (int i = 0; i < Shape::kThreadRows; ++i) {
      typename SumsOfThread::Value values[4];
#pragma unroll
      for (int c = 0; c < 4; ++c)
        values[c] = sums.value(i, j + c);
      epilogue.row(columns, position.first_row + thread_row + i / 4 * kRowGroupStep + i % 4, column, values);
    }
  }
  epilogue.finish(shared_memory());
}

}  // namespace siglip2::cuda
