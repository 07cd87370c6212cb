// The register tile that every matrix product of the CPU kernels is made of:
//
//   out[i][j] (+)= Σ_k a[i][k] · b[k][j]   for up to kTileRows rows i and kTileColumns columns j
//
// b is read as vectors along j and a by broadcast, so the sums never leave the registers and nothing is reduced across
// lanes. Each sum runs over k in order, whatever the number of rows: the same inputs give the same bits in every tile.
#pragma once

#include "cpu/simd/simd.h"

namespace siglip2::SIGLIP2_ISA {

inline constexpr int kTileColumns = kTileVectors * kLanes;

struct TileArgs {
  const float* a;      // [count][kTileRows]: a[i][k] at a[k·kTileRows + i]
  const float* b;      // [count][kTileColumns]
  std::int64_t count;  // of k
  float* out;          // out[i][j] at out[i·out_stride + j]; kTileColumns values of a row are written
  std::int64_t out_stride;
  bool accumulate;
};

// `rows` is from 1 to kTileRows.
void multiply_tile(int rows, const TileArgs& args);

// A square of a tile's rows for packing: square[j] has, in lane i, `change`(source[i][j], i) for the first `columns` of
// kLanes columns, and for 0 in the others. Rows that are not there repeat the last of `tile_rows`; nobody reads them.
template <typename Change>
SIGLIP2_INLINE void load_square(const float* source, std::int64_t stride, std::int64_t tile_rows, int columns,
                                Vec (&square)[kLanes], const Change& change) {
  static_assert(kTileRows <= kLanes);
  SIGLIP2_UNROLL for (int i = 0; i < kLanes; ++i) {
    const std::int64_t row = i < tile_rows ? i : tile_rows - 1;
    const float* const values = source + row * stride;
    if (i < kTileRows)
      square[i] = change(columns == kLanes ? load(values) : load_first(values, columns), row);
    else
      square[i] = zero();
  }
  transpose(square);
}

// Lays `rows` rows of `count` values out as panels for `a` above: [⌈rows/kTileRows⌉][count][kTileRows], with anything
// beyond the last row. Up to kLanes floats behind the panels are overwritten.
void pack_rows(const float* source, std::int64_t stride, std::int64_t rows, std::int64_t count, float* panels);

}  // namespace siglip2::SIGLIP2_ISA
