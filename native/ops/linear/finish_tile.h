// What follows the sums of a linear layer on CPUs.
#pragma once

#include "cpu/simd/tile.h"
#include "ops/gelu/gelu_row.h"
#include "ops/linear/linear.h"
#include "ops/linear/tile_sums.h"

namespace siglip2::SIGLIP2_ISA {

SIGLIP2_INLINE Vec load_tile_row(const ConstMatrixView& view, std::int64_t row, std::int64_t column, int lanes) {
  const float* const values = view.as<float>() + row * view.stride + column;
  return lanes == kLanes ? load(values) : load_first(values, lanes);
}

// One tile's sums, with bias, activation or gradient of one, and residual, to the output from `first_row` on.
template <typename Sums, typename Gelu>
void finish_tile(const LinearArgs& args, const Sums& sums, const Gelu& gelu, std::int64_t first_row, std::int64_t rows,
                 std::int64_t panel) {
  const TileBias bias(args.bias, args.weight.out_features, panel);
  for (int v = 0; v < kTileVectors; ++v) {
    const std::int64_t column = panel * kTileColumns + v * kLanes;
    const std::int64_t left = args.weight.out_features - column;
    if (left <= 0) return;
    const int lanes = static_cast<int>(left < kLanes ? left : kLanes);
    for (std::int64_t i = 0; i < rows; ++i) {
      Vec x = sums(i, v) + bias[v];
      if (args.activation == Activation::kGeluTanh) x = gelu(x);
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

// A row of a tile in a matrix, of which there may be none, and the rows behind it.
template <typename View>
class TileRow {
 public:
  SIGLIP2_INLINE TileRow(const View& view, std::int64_t first_row, const TilePlace& place)
      : values_(view.data == nullptr
                    ? nullptr
                    : view.template as<float>() + (first_row + place.row) * view.stride + place.panel * kTileColumns),
        stride_(view.stride),
        to_next_(place.rows_to_next * view.stride + place.panels_to_next * kTileColumns) {}

  SIGLIP2_INLINE auto* get() const { return values_; }
  // The row some rows later, which is written soon, and the one in the tile behind, whose lines are a pair.
  SIGLIP2_INLINE const float* later() const { return values_ + 4 * stride_; }
  SIGLIP2_INLINE const float* in_next_tile() const { return values_ + to_next_; }
  SIGLIP2_INLINE void skip_row() { values_ += stride_; }

 private:
  decltype(View().template as<float>()) values_;
  std::int64_t stride_, to_next_;
};

// finish_tile row after row, for whole panels. What a row needs is asked for a tile earlier, to the L2 cache, so that
// few of the buffers in which lines come to the L1 cache are taken for long: rows and columns of the products need
// them.
template <typename Sums>
class LinearRows {
 public:
  SIGLIP2_INLINE LinearRows(const LinearArgs& args, std::int64_t first_row, const Sums& sums, const TilePlace& place)
      : sums_(sums),
        bias_(args.bias, args.weight.out_features, place.panel),
        output_(args.output, first_row, place),
        residual_(args.residual, first_row, place),
        pre_activation_(args.pre_activation, first_row, place),
        activated_(args.activation == Activation::kGeluTanh) {}

  SIGLIP2_INLINE void next(const ShortGelu& gelu) {
    const float* const residual = residual_.get();
    const float* const pre_activation = pre_activation_.get();
    prefetch(output_.in_next_tile());
    if (residual != nullptr) prefetch(residual_.in_next_tile());
    if (pre_activation != nullptr) prefetch(pre_activation_.in_next_tile());
    for (int v = 0; v < kTileVectors; ++v) {
      const int column = v * kLanes;
      prefetch_written(output_.later() + column);
      Vec x = sums_(0, v) + bias_[v];
      if (activated_) x = gelu(x);
      if (pre_activation != nullptr) x = x * gelu_tanh_derivative(load(pre_activation + column));
      if (residual != nullptr) x = x + load(residual + column);
      store(output_.get() + column, x);
    }
    sums_.skip_row();
    output_.skip_row();
    if (residual != nullptr) residual_.skip_row();
    if (pre_activation != nullptr) pre_activation_.skip_row();
  }

 private:
  Sums sums_;
  TileBias bias_;
  TileRow<MatrixView> output_;
  TileRow<ConstMatrixView> residual_, pre_activation_;
  bool activated_;
};

// Finishes the tiles of rows from `first_row` on; see multiply_panels.
struct FinishLinear {
  const LinearArgs& args;
  std::int64_t first_row;

  template <typename Sums, typename Gelu>
  void operator()(const Sums& sums, const Gelu& gelu, std::int64_t row, std::int64_t rows, std::int64_t panel) const {
    finish_tile(args, sums, gelu, first_row + row, rows, panel);
  }
  void prefetch_rows(std::int64_t row, std::int64_t rows, std::int64_t panel) const {
    prefetch_finish(args, first_row + row, rows, panel * kTileColumns);
  }
  bool row_by_row(std::int64_t panel) const { return (panel + 1) * kTileColumns <= args.weight.out_features; }
  template <typename Sums>
  LinearRows<Sums> rows(const Sums& sums, const TilePlace& place) const {
    return {args, first_row, sums, place};
  }
};

}  // namespace siglip2::SIGLIP2_ISA
