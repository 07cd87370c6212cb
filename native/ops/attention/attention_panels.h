// How the rows of one head (queries, keys, gradients …) are laid out for the register tile of cpu/simd/tile.h, besides
// `pack_rows` of that header. Included by the kernels of attention only.
#pragma once

#include "cpu/simd/pair_panels.h"
#include "cpu/simd/pair_tile.h"
#include "cpu/simd/simd.h"
#include "cpu/simd/tile.h"
#include "tensor/dtype.h"

namespace siglip2::SIGLIP2_ISA {

constexpr std::int64_t round_up(std::int64_t a, std::int64_t b) {
  return divide_up(a, b) * b;
}
constexpr std::int64_t smaller(std::int64_t a, std::int64_t b) {
  return a < b ? a : b;
}

// Lays `rows` rows of `count` values out as `b` of the tile with rows as lanes, multiplied by `scale`, in float32:
// [⌈rows/kTileColumns⌉][count][kTileColumns]; lanes without a row are 0.
template <typename Value>
inline void pack_columns(const Value* source, std::int64_t stride, std::int64_t rows, std::int64_t count, float scale,
                         float* panels) {
  const Vec factor = broadcast(scale);
  for (std::int64_t first = 0; first < rows; first += kTileColumns, panels += count * kTileColumns) {
    for (int v = 0; v < kTileVectors; ++v) {
      for (std::int64_t i = 0; i < count; i += kLanes) {
        const int left = static_cast<int>(count - i < kLanes ? count - i : kLanes);
        Vec square[kLanes];
        SIGLIP2_UNROLL for (int lane = 0; lane < kLanes; ++lane) {
          const std::int64_t row = first + v * kLanes + lane;
          const Value* const values = source + row * stride + i;
          square[lane] = row >= rows ? zero() : (left == kLanes ? load(values) : load_first(values, left)) * factor;
        }
        transpose(square);
        SIGLIP2_UNROLL for (int j = 0; j < kLanes; ++j) {
          if (j < left) store(panels + (i + j) * kTileColumns + v * kLanes, square[j]);
        }
      }
    }
  }
}

// Lays `rows` rows of `count` values out as `a` of the tile with values as its rows: [⌈count/kTileRows⌉][rows]
// [kTileRows], with anything beyond the last value.
inline void pack_features(const float* source, std::int64_t stride, std::int64_t rows, std::int64_t count,
                          float* panels) {
  for (std::int64_t row = 0; row < rows; ++row, source += stride) {
    float* panel = panels + row * kTileRows;
    std::int64_t i = 0;
    for (; i + kTileRows <= count; i += kTileRows, panel += rows * kTileRows) {
      std::memcpy(panel, source + i, kTileRows * sizeof(float));
    }
    for (std::int64_t r = 0; i + r < count; ++r)
      panel[r] = source[i + r];
  }
}

// The way back from a panel [count][kTileColumns] whose lanes are rows, each multiplied by its lane of `scale`: writes
// the first `rows` lanes, at most kTileColumns, to rows of `target`.
template <typename Value>
inline void write_columns(const float* panel, const Vec (&scale)[kTileVectors], std::int64_t rows, std::int64_t count,
                          Value* target, std::int64_t stride) {
  for (int v = 0; v < kTileVectors; ++v) {
    for (std::int64_t i = 0; i < count; i += kLanes) {
      const int left = static_cast<int>(count - i < kLanes ? count - i : kLanes);
      Vec square[kLanes];
      SIGLIP2_UNROLL for (int j = 0; j < kLanes; ++j) {
        square[j] = j < left ? load(panel + (i + j) * kTileColumns + v * kLanes) * scale[v] : zero();
      }
      transpose(square);
      SIGLIP2_UNROLL for (int lane = 0; lane < kLanes; ++lane) {
        if (v * kLanes + lane >= rows) break;
        Value* const values = target + (v * kLanes + lane) * stride + i;
        if (left == kLanes) {
          store(values, square[lane]);
        } else {
          store_first(values, square[lane], left);
        }
      }
    }
  }
}

// The same to a matrix of either type.
inline void write_columns(const float* panel, const Vec (&scale)[kTileVectors], std::int64_t rows, std::int64_t count,
                          const MatrixView& target) {
  if (target.dtype == DType::kBFloat16)
    write_columns(panel, scale, rows, count, target.as<BFloat16>(), target.stride);
  else
    write_columns(panel, scale, rows, count, target.as<float>(), target.stride);
}

// How the operands of one call's products are packed.
struct HeadLayout {
  bool pairs;
  const TileFormat& format;
  std::int64_t head_dim;
  std::int64_t head_units;   // of products over head_dim
  std::int64_t column_rows;  // rows of a panel with head_dim as its depth, before and after they are joined
  std::int64_t head_rows;    // head_dim in whole tiles

  static HeadLayout of(std::int64_t head_dim, DType product_type) {
    const bool pairs = product_type == DType::kBFloat16;
    const TileFormat& format = pairs ? pair_format() : kFloatFormat;
    const std::int64_t units = format.units(head_dim, pairs ? 2 : 1);
    return {pairs, format, head_dim, units, units > head_dim ? units : head_dim, round_up(head_dim, format.rows)};
  }

  // Units of a depth.
  std::int64_t units(std::int64_t depth) const { return format.units(depth, pairs ? 2 : 1); }
  // Words before row `row` of panels of rows, which begins a tile, at unit `unit`.
  std::int64_t row_offset(std::int64_t row, std::int64_t depth, std::int64_t unit = 0) const {
    return (row * units(depth) + unit * format.rows) * format.row_words;
  }
  // Words of panels of `rows` rows, with what packing writes behind them.
  std::int64_t row_words(std::int64_t rows, std::int64_t depth) const {
    return row_offset(round_up(rows, format.rows), depth) + kLanes;
  }
  // Panels of rows whose depth are values of a row, and whose depth are rows.
  void pack_rows(const Operand& source, std::int64_t rows, float* panels) const {
    if (pairs)
      pack_pair_rows(source, rows, head_dim, panels);
    else
      SIGLIP2_ISA::pack_rows(source.floats(), source.stride(), rows, head_dim, panels);
  }
  void pack_features(const Operand& source, std::int64_t rows, float* panels) const {
    if (pairs)
      pack_transposed_pair_rows(source, rows, head_dim, head_dim, panels, nullptr);
    else
      SIGLIP2_ISA::pack_features(source.floats(), source.stride(), rows, head_dim, panels);
  }
  // Makes `depth` rows of a panel what `multiply` takes; the others are 0 as far as that reads.
  void join(float* panel, std::int64_t depth) const {
    if (pairs) join_panel_rows(panel, depth, units(depth));
  }
  void multiply(std::int64_t rows, const TileArgs& tile) const {
    const int count = static_cast<int>(smaller(format.rows, rows));
    pairs ? multiply_pair_tile(count, tile) : multiply_tile(count, tile);
  }
};

}  // namespace siglip2::SIGLIP2_ISA
