// What follows the sums of a linear layer on CPUs.
#pragma once

#include "cpu/simd/tile.h"
#include "ops/gelu/gelu_row.h"
#include "ops/linear/linear.h"

namespace siglip2::SIGLIP2_ISA {

SIGLIP2_INLINE Vec load_tile_row(const ConstMatrixView& view, std::int64_t row, std::int64_t column, int lanes) {
  const float* const values = view.as<float>() + row * view.stride + column;
  return lanes == kLanes ? load(values) : load_first(values, lanes);
}

// One tile's sums [rows][kTileColumns], with bias, activation or gradient of one, and residual, to the output from
// `first_row` and `first_column` on.
inline void finish_tile(const LinearArgs& args, const float* sums, std::int64_t first_row, std::int64_t rows,
                        std::int64_t first_column) {
  for (int v = 0; v < kTileVectors; ++v) {
    const std::int64_t column = first_column + v * kLanes;
    const std::int64_t left = args.weight.out_features - column;
    if (left <= 0) return;
    const int lanes = static_cast<int>(left < kLanes ? left : kLanes);
    const Vec bias = args.bias != nullptr ? load_first(args.bias + column, lanes) : zero();
    for (std::int64_t i = 0; i < rows; ++i) {
      Vec x = load(sums + i * kTileColumns + v * kLanes) + bias;
      if (args.activation == Activation::kGeluTanh) x = gelu_beside_product(args.weight.dtype, x);
      if (args.pre_activation.data != nullptr)
        x = x * gelu_tanh_derivative(load_tile_row(args.pre_activation, first_row + i, column, lanes));
      if (args.residual.data != nullptr) x = x + load_tile_row(args.residual, first_row + i, column, lanes);
      float* const output = args.output.as<float>() + (first_row + i) * args.output.stride + column;
      if (lanes == kLanes) {
        store(output, x);
      } else {
        store_first(output, x, lanes);
      }
    }
  }
}

// Asks for what finish_tile will read and write besides sums, which may be in memory.
inline void prefetch_finish(const LinearArgs& args, std::int64_t first_row, std::int64_t rows,
                            std::int64_t first_column) {
  for (std::int64_t column = first_column; column < first_column + kTileColumns; column += kLanes) {
    if (column >= args.weight.out_features) return;
    for (std::int64_t row = first_row; row < first_row + rows; ++row) {
      if (args.residual.data != nullptr) prefetch_near(args.residual.as<float>() + row * args.residual.stride + column);
      if (args.pre_activation.data != nullptr)
        prefetch_near(args.pre_activation.as<float>() + row * args.pre_activation.stride + column);
      prefetch_written(args.output.as<float>() + row * args.output.stride + column);
    }
  }
}

// Finishes the tiles of rows from `first_row` on; see multiply_panels.
struct FinishLinear {
  const LinearArgs& args;
  std::int64_t first_row;

  void operator()(const float* sums, std::int64_t row, std::int64_t rows, std::int64_t panel) const {
    finish_tile(args, sums, first_row + row, rows, panel * kTileColumns);
  }
  bool in_parts(std::int64_t) const { return true; }
  void prefetch_rows(std::int64_t row, std::int64_t rows, std::int64_t panel) const {
    prefetch_finish(args, first_row + row, rows, panel * kTileColumns);
  }
};

}  // namespace siglip2::SIGLIP2_ISA
