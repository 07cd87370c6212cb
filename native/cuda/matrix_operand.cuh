// Operands of matrix products, and how blocks bring slabs of them into shared memory.
//
// A product takes sums over `depth`. An operand is stored in one of two ways: rows of the result as rows, depth running
// along them ("plain"); or depth as rows ("transposed"), as the operands of weight gradients are. Neither is ever
// copied into the other's layout: the loads from shared memory transpose.
//
// Copies are of 16 bytes where the matrix allows it, with zeros for what lies outside. A matrix whose rows do not start
// at multiples of 16 bytes, or end between, goes by 8 bytes or by elements; nothing outside of it is ever read.
#pragma once

#include <cstdint>

#include "cuda/prim/async_copy.h"
#include "cuda/prim/bfloat16.h"
#include "cuda/prim/bounds.h"
#include "cuda/prim/launch.h"
#include "cuda/prim/vector.h"

namespace siglip2::cuda {

// A matrix as it is stored.
template <typename T>
struct Operand {
  const T* data;
  std::int64_t stride;
  std::int64_t rows;
  std::int64_t columns;
  int copy_bytes;  // 16, 8 (bfloat16 alone) or one element: what every copy may take at a multiple of it
};

template <typename T>
Operand<T> make_operand(const ConstMatrixView& view) {
  const auto fits = [&](int bytes) {
    return rows_aligned(view.data, view.stride, sizeof(T), static_cast<std::size_t>(bytes)) &&
           view.columns * static_cast<std::int64_t>(sizeof(T)) % bytes == 0;
  };
  const int bytes = fits(16) ? 16 : sizeof(T) == 2 && fits(8) ? 8 : static_cast<int>(sizeof(T));
  return {view.as<T>(), view.stride, view.rows, view.columns, bytes};
}

template <typename T>
Access reads(const Operand<T>& operand) {
  constexpr auto kSize = static_cast<std::int64_t>(sizeof(T));
  return {operand.data, operand.rows, operand.columns * kSize, operand.stride * kSize, false};
}

// The bfloat16 tile of kRows rows of the result by kDepth in shared memory, in chunks of eight elements.
//
//   plain       kRows lines of kDepth elements. Two lines of 32 elements share the 32 banks, so chunk c of line r lies
//   at
//               c xor (r / 2 mod 4): the eight rows that one matrix load takes then lie in different banks.
//   transposed  kDepth lines of kRows elements, chunk c of line k at c xor (k mod 8).
template <int kRows, int kDepth, bool kTransposed>
struct TensorTile {
  static_assert(kDepth == 32 && kRows % 64 == 0);
  static constexpr int kChunksOfLine = (kTransposed ? kRows : kDepth) / 8;
  static constexpr int kElements = kRows * kDepth;

  __device__ __forceinline__ static int offset(int line, int chunk) {
    if constexpr (kTransposed) return line * kRows + (chunk ^ (line & 7)) * 8;
    return line * kDepth + (chunk ^ (line >> 1 & 3)) * 8;
  }
};

// What a thread copies of each slab: chunks of one column, kLineStep lines apart.
template <int kRows, int kDepth, int kThreads, bool kTransposed, bool kAligned>
class TensorTileLoader {
  using Tile = TensorTile<kRows, kDepth, kTransposed>;
  static constexpr int kLineStep = kThreads / Tile::kChunksOfLine;
  static constexpr int kChunks = Tile::kElements / 8 / kThreads;
  static_assert(kThreads % Tile::kChunksOfLine == 0 && kChunks * kThreads * 8 == Tile::kElements);

 public:
  __device__ __forceinline__ TensorTileLoader(const Operand<bfloat16>& operand, std::int64_t first_row)
      : operand_(operand) {
    const int thread = static_cast<int>(threadIdx.x);
    line_ = thread / Tile::kChunksOfLine;
    chunk_ = thread % Tile::kChunksOfLine;
    first_line_ = kTransposed ? line_ : first_row + line_;
    first_column_ = chunk_ * 8 + (kTransposed ? first_row : 0);
  }

  // Queues the copies of the slab that begins at `depth`; the caller commits.
  __device__ __forceinline__ void load(bfloat16* tile, std::int64_t depth) const {
    const std::int64_t column = first_column_ + (kTransposed ? 0 : depth);
    const bool column_exists = in_bounds(column < operand_.columns);
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
      const std::int64_t line = first_line_ + i * kLineStep + (kTransposed ? depth : 0);
      const bool line_exists = in_bounds(line < operand_.rows);
      bfloat16* const target = tile + Tile::offset(line_ + i * kLineStep, chunk_);
      const bfloat16* const source = operand_.data + line * operand_.stride + column;
      if constexpr (kAligned) {
        async_copy_16(target, source, column_exists && line_exists);
      } else {
        load_narrow(target, source, column, line_exists);
      }
    }
  }

 private:
  __device__ __forceinline__ void load_narrow(bfloat16* target, const bfloat16* source, std::int64_t column,
                                              bool line_exists) const {
    if (operand_.copy_bytes >= 8) {
#pragma unroll
      for (int i = 0; i < 8; i += 4)
        async_copy_small<8>(target + i, source + i, line_exists && in_bounds(column + i < operand_.columns));
      return;
    }
    Vector<bfloat16, 8> values;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      values[i] = bfloat16{0};
      if (line_exists && in_bounds(column + i < operand_.columns)) values[i] = source[i];
    }
    store_vector(target, values);
  }

  const Operand<bfloat16>& operand_;
  std::int64_t first_line_, first_column_;
  int line_, chunk_;
};

// The float32 tile of kRows rows of the result by kDepth in shared memory: depth as lines, so that a thread reads
// neighbouring rows in one access. Lines are four elements longer than they need to be: copies that transpose write to
// several lines at once.
template <int kRows, int kDepth, int kThreads, bool kTransposed>
struct FloatTile {
  static constexpr int kLine = kRows + 4;
  static constexpr int kElements = kLine * kDepth;

  // Queues the copies of the slab that begins at `depth`; the caller commits.
  __device__ __forceinline__ static void load(float* tile, const Operand<float>& operand, std::int64_t first_row,
                                              std::int64_t depth) {
    const int thread = static_cast<int>(threadIdx.x);
    if constexpr (!kTransposed) {
#pragma unroll
      for (int i = thread; i < kRows * kDepth; i += kThreads) {
        const int row = i / kDepth, k = i % kDepth;
        const bool row_exists = in_bounds(first_row + row < operand.rows);
        const bool depth_exists = in_bounds(depth + k < operand.columns);
        async_copy_small<4>(tile + k * kLine + row, operand.data + (first_row + row) * operand.stride + depth + k,
                            row_exists && depth_exists);
      }
    } else if (operand.copy_bytes == 16) {
#pragma unroll
      for (int i = thread; i < kRows * kDepth / 4; i += kThreads) {
        const int k = i / (kRows / 4), row = i % (kRows / 4) * 4;
        const bool depth_exists = in_bounds(depth + k < operand.rows);
        const bool row_exists = in_bounds(first_row + row < operand.columns);
        async_copy_16(tile + k * kLine + row, operand.data + (depth + k) * operand.stride + first_row + row,
                      row_exists && depth_exists);
      }
    } else {
#pragma unroll
      for (int i = thread; i < kRows * kDepth; i += kThreads) {
        const int k = i / kRows, row = i % kRows;
        const bool depth_exists = in_bounds(depth + k < operand.rows);
        const bool row_exists = in_bounds(first_row + row < operand.columns);
        async_copy_small<4>(tile + k * kLine + row, operand.data + (depth + k) * operand.stride + first_row + row,
                            row_exists && depth_exists);
      }
    }
  }
};

}  // namespace siglip2::cuda
