// How the rows of one head (queries, keys, gradients …) are laid out for the register tile of cpu/simd/tile.h, besides
// `pack_rows` of that header. Included by the kernels of attention only.
#pragma once

#include "cpu/simd/simd.h"
#include "cpu/simd/tile.h"

namespace siglip2::SIGLIP2_ISA {

// Lays `rows` rows of `count` values out as `b` of the tile with rows as lanes, multiplied by `scale`:
// [⌈rows/kTileColumns⌉][count][kTileColumns]; lanes without a row are 0.
inline void pack_columns(const float* source, std::int64_t stride, std::int64_t rows, std::int64_t count, float scale,
                         float* panels) {
  const Vec factor = broadcast(scale);
  for (std::int64_t first = 0; first < rows; first += kTileColumns, panels += count * kTileColumns) {
    for (int v = 0; v < kTileVectors; ++v) {
      for (std::int64_t i = 0; i < count; i += kLanes) {
        const int left = static_cast<int>(count - i < kLanes ? count - i : kLanes);
        Vec square[kLanes];
        SIGLIP2_UNROLL for (int lane = 0; lane < kLanes; ++lane) {
          const std::int64_t row = first + v * kLanes + lane;
          const float* const values = source + row * stride + i;
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
inline void write_columns(const float* panel, const Vec (&scale)[kTileVectors], std::int64_t rows, std::int64_t count,
                          float* target, std::int64_t stride) {
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
        float* const values = target + (v * kLanes + lane) * stride + i;
        if (left == kLanes) {
          store(values, square[lane]);
        } else {
          store_first(values, square[lane], left);
        }
      }
    }
  }
}

}  // namespace siglip2::SIGLIP2_ISA
