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

constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

// How the operands of a register tile are packed. Units are 32 bits of b: one float32, a pair of bfloat16 numbers, a
// quad of 8-bit integers. `a` has, for one tile of rows after the other, `rows` · `row_words` words for each unit.
struct TileFormat {
  int rows;                 // most rows of a tile
  int row_words;            // 32-bit words of a unit of a row
  int step;                 // units come in multiples of this, with zeros behind the last value of both operands
  std::int64_t most_depth;  // units of a block of both operands that caches hold while tiles are made of it

  std::int64_t units(std::int64_t values, int values_of_unit) const {
    const std::int64_t units = (values + values_of_unit - 1) / values_of_unit;
    return (units + step - 1) / step * step;
  }
};
inline constexpr std::int64_t kMostUnits = 384;
inline constexpr TileFormat kFloatFormat = {kTileRows, 1, 1, kMostUnits};

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

// A square of a tile's rows for packing: square[j] has, in lane i, lane j of load_row(i), for the first `tile_rows`
// rows of kTileRows. Rows that are not there repeat the last; nobody reads them.
template <typename LoadRow>
SIGLIP2_INLINE void load_square(std::int64_t tile_rows, Vec (&square)[kLanes], const LoadRow& load_row) {
  static_assert(kTileRows <= kLanes);
  SIGLIP2_UNROLL for (int i = 0; i < kLanes; ++i) {
    square[i] = i < kTileRows ? load_row(i < tile_rows ? i : tile_rows - 1) : zero();
  }
  transpose(square);
}

// Lays `rows` rows of `count` values out as panels for `a` above: [⌈rows/kTileRows⌉][count][kTileRows], with anything
// beyond the last row. Up to kLanes floats behind the panels are overwritten.
void pack_rows(const float* source, std::int64_t stride, std::int64_t rows, std::int64_t count, float* panels);

}  // namespace siglip2::SIGLIP2_ISA
