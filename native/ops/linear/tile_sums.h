// Complete sums of a tile of a packed product as those who finish them read them: all of them, or row after row.
#pragma once

#include "cpu/simd/tile.h"

namespace siglip2::SIGLIP2_ISA {

// Where a tile is, and how far it is from there to the one that is finished after it.
struct TilePlace {
  std::int64_t row, panel;
  std::int64_t rows_to_next = 0, panels_to_next = 0;
};

// Float32 sums [rows][kTileColumns], which may be overwritten.
struct FloatSums {
  float* sums;

  // Columns [v·kLanes, (v + 1)·kLanes) of a row.
  SIGLIP2_INLINE Vec operator()(std::int64_t row, int v) const { return load(sums + row * kTileColumns + v * kLanes); }
  SIGLIP2_INLINE void skip_row() { sums += kTileColumns; }
};

// 32-bit sums of products of 8-bit integers, times the scales of their row and column: what scale_quad_tile
// (cpu/simd/quad_tile.h) makes of them where no offset is subtracted.
struct QuadSums {
  float* sums;
  const float* row_scales;
  Vec column_scales[kTileVectors];

  // `tail` follows the panel's last unit.
  SIGLIP2_INLINE QuadSums(float* tile, const float* tail, const float* scales) : sums(tile), row_scales(scales) {
    for (int v = 0; v < kTileVectors; ++v)
      column_scales[v] = load(tail + v * kLanes);
  }
  SIGLIP2_INLINE Vec operator()(std::int64_t row, int v) const {
    const Vec sum = int_to_float(load(sums + row * kTileColumns + v * kLanes));
    return sum * (column_scales[v] * broadcast(row_scales[row]));
  }
  SIGLIP2_INLINE void skip_row() {
    sums += kTileColumns;
    ++row_scales;
  }
};

// The bias [out_features] of a panel's columns; 0 behind the last, and without one.
struct TileBias {
  Vec values[kTileVectors];

  SIGLIP2_INLINE TileBias(const float* bias, std::int64_t out_features, std::int64_t panel) {
    for (int v = 0; v < kTileVectors; ++v) {
      const std::int64_t column = panel * kTileColumns + v * kLanes, left = out_features - column;
      values[v] = bias == nullptr || left <= 0 ? zero()
                  : left >= kLanes             ? load(bias + column)
                                               : load_first(bias + column, static_cast<int>(left));
    }
  }
  SIGLIP2_INLINE Vec operator[](int v) const { return values[v]; }
};

// A tile's sums with their bias, and where they go, row after row.
template <typename Sums>
struct TileRows {
  Sums sums;
  TileBias bias;
  float* target;
  std::int64_t stride;

  SIGLIP2_INLINE Vec operator[](int v) const { return sums(0, v) + bias[v]; }
  SIGLIP2_INLINE void skip_row() {
    sums.skip_row();
    target += stride;
  }
};

}  // namespace siglip2::SIGLIP2_ISA
