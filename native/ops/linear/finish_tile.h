// What follows the sums of a linear layer on CPUs.
#pragma once

#include "cpu/simd/matrix_unit.h"
#include "cpu/simd/row_math.h"
#include "cpu/simd/tile.h"
#include "ops/gelu/gelu_row.h"
#include "ops/linear/linear.h"
#include "ops/linear/tile_sums.h"

namespace siglip2::SIGLIP2_ISA {

// Up to a vector of a row of a matrix in float32 or bfloat16.
SIGLIP2_INLINE Vec load_tile_row(const ConstMatrixView& view, std::int64_t row, std::int64_t column, int lanes) {
  const std::int64_t at = row * view.stride + column;
  return view.dtype == DType::kBFloat16 ? load_up_to(view.as<BFloat16>() + at, lanes)
                                        : load_up_to(view.as<float>() + at, lanes);
}
SIGLIP2_INLINE void store_tile_row(const MatrixView& view, std::int64_t row, std::int64_t column, Vec x, int lanes) {
  const std::int64_t at = row * view.stride + column;
  view.dtype == DType::kBFloat16 ? store_up_to(view.as<BFloat16>() + at, x, lanes)
                                 : store_up_to(view.as<float>() + at, x, lanes);
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
      store_tile_row(args.output, first_row + i, column, x, lanes);
    }
  }
}

// Where an element of a matrix of any type lies.
SIGLIP2_INLINE const char* element_of(const ConstMatrixView& view, std::int64_t row, std::int64_t column) {
  return view.as<char>() + (row * view.stride + column) * static_cast<std::int64_t>(size_of(view.dtype));
}

// Asks for what finish_tile will read and write besides sums, which may be in memory.
inline void prefetch_finish(const LinearArgs& args, std::int64_t first_row, std::int64_t rows,
                            std::int64_t first_column) {
  for (std::int64_t column = first_column; column < first_column + kTileColumns; column += kLanes) {
    if (column >= args.weight.out_features) return;
    for (std::int64_t row = first_row; row < first_row + rows; ++row) {
      if (args.residual.data != nullptr) prefetch_near(args.residual.as<float>() + row * args.residual.stride + column);
      if (args.pre_activation.data != nullptr) prefetch_near(element_of(args.pre_activation, row, column));
      prefetch_written(element_of(args.output, row, column));
    }
  }
}

#if defined(SIGLIP2_MATRIX_UNIT)

// A row of a tile in a matrix that is read, of which there may be none, and the rows behind it.
class SourceTileRow {
 public:
  SIGLIP2_INLINE SourceTileRow(const ConstMatrixView& view, std::int64_t first_row, const TilePlace& place)
      : size_(static_cast<std::int64_t>(size_of(view.dtype))),
        values_(view.data == nullptr ? nullptr : element_of(view, first_row + place.row, place.panel * kTileColumns)),
        stride_(view.stride * size_),
        to_next_((place.rows_to_next * view.stride + place.panels_to_next * kTileColumns) * size_) {}

  SIGLIP2_INLINE bool exists() const { return values_ != nullptr; }
  // Asks for the row in the tile behind, whose lines are a pair.
  SIGLIP2_INLINE void prefetch_later() const { prefetch(values_ + to_next_); }
  // Vector `v` of a row, of `Value`s, or of whichever the matrix has.
  template <typename Value>
  SIGLIP2_INLINE Vec read(int v) const {
    return load(reinterpret_cast<const Value*>(values_) + v * kLanes);
  }
  SIGLIP2_INLINE Vec read(int v) const { return size_ == sizeof(BFloat16) ? read<BFloat16>(v) : read<float>(v); }
  SIGLIP2_INLINE void skip_row() { values_ += stride_; }

 private:
  std::int64_t size_;
  const char* values_;
  std::int64_t stride_, to_next_;
};

// A row of a tile in the output, which is float32 or bfloat16, and the rows behind it.
class OutputTileRow {
 public:
  SIGLIP2_INLINE OutputTileRow(const MatrixView& view, std::int64_t first_row, const TilePlace& place)
      : size_(static_cast<std::int64_t>(size_of(view.dtype))),
        values_(view.as<char>() + ((first_row + place.row) * view.stride + place.panel * kTileColumns) * size_),
        stride_(view.stride * size_),
        to_next_((place.rows_to_next * view.stride + place.panels_to_next * kTileColumns) * size_) {}

  // Asks for the row in the tile behind, and for the one some rows later, which is written soon.
  SIGLIP2_INLINE void prefetch_later() const {
    prefetch(values_ + to_next_);
    prefetch_written(values_ + 4 * stride_);
    if (!rounded()) prefetch_written(values_ + 4 * stride_ + kLanes * sizeof(float));
  }
  SIGLIP2_INLINE void write(Vec first, Vec second) {
    float* const values = reinterpret_cast<float*>(values_);
    if (rounded()) {
      store_pair_words(first, second, values);
    } else {
      store(values, first);
      store(values + kLanes, second);
    }
  }
  SIGLIP2_INLINE void skip_row() { values_ += stride_; }

 private:
  SIGLIP2_INLINE bool rounded() const { return size_ == sizeof(BFloat16); }

  std::int64_t size_;
  char* values_;
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
    const bool residual = residual_.exists(), pre_activation = pre_activation_.exists();
    output_.prefetch_later();
    if (residual) residual_.prefetch_later();
    if (pre_activation) pre_activation_.prefetch_later();
    Vec row[kTileVectors];
    for (int v = 0; v < kTileVectors; ++v) {
      Vec x = sums_(0, v) + bias_[v];
      if (activated_) x = gelu(x);
      if (pre_activation) x = x * gelu_tanh_derivative(pre_activation_.read(v));
      if (residual) x = x + residual_.read<float>(v);
      row[v] = x;
    }
    output_.write(row[0], row[1]);
    sums_.skip_row();
    output_.skip_row();
    if (residual) residual_.skip_row();
    if (pre_activation) pre_activation_.skip_row();
  }

 private:
  Sums sums_;
  TileBias bias_;
  OutputTileRow output_;
  SourceTileRow residual_, pre_activation_;
  bool activated_;
};

#endif

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
#if defined(SIGLIP2_MATRIX_UNIT)
  bool row_by_row(std::int64_t panel) const { return (panel + 1) * kTileColumns <= args.weight.out_features; }
  template <typename Sums>
  LinearRows<Sums> rows(const Sums& sums, const TilePlace& place) const {
    return {args, first_row, sums, place};
  }
#endif
};

}  // namespace siglip2::SIGLIP2_ISA
