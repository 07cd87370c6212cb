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
  const float* a;  // a[i][k] at a[i·a_row_stride + k·a_step]
  std::int64_t a_row_stride;
  std::int64_t a_step;
  const float* b;  // b[k][j] at b[k·b_step + j]; kTileColumns values are read
  std::int64_t b_step;
  std::int64_t count;  // of k
  float* out;          // out[i][j] at out[i·out_stride + j]; kTileColumns values are written
  std::int64_t out_stride;
  bool accumulate;
};

template <int kRows>
void multiply_tile_rows(const TileArgs& args) {
  Vec sums[kRows][kTileVectors];
  for (int i = 0; i < kRows; ++i) {
    for (int v = 0; v < kTileVectors; ++v)
      sums[i][v] = zero();
  }
  const float* a = args.a;
  const float* b = args.b;
  const std::int64_t row_stride = args.a_row_stride, a_step = args.a_step, b_step = args.b_step;
  for (std::int64_t k = 0; k < args.count; ++k) {
    Vec columns[kTileVectors];
    for (int v = 0; v < kTileVectors; ++v)
      columns[v] = load(b + v * kLanes);
    for (int i = 0; i < kRows; ++i) {
      const Vec x = broadcast(a[i * row_stride]);
      for (int v = 0; v < kTileVectors; ++v)
        sums[i][v] = multiply_add(x, columns[v], sums[i][v]);
    }
    a += a_step;
    b += b_step;
  }
  for (int i = 0; i < kRows; ++i) {
    float* const out = args.out + i * args.out_stride;
    for (int v = 0; v < kTileVectors; ++v) {
      store(out + v * kLanes, args.accumulate ? load(out + v * kLanes) + sums[i][v] : sums[i][v]);
    }
  }
}

// Up to kTileRows rows.
template <int kRows = kTileRows>
void multiply_tile(int rows, const TileArgs& args) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return multiply_tile<kRows - 1>(rows, args);
  }
  multiply_tile_rows<kRows>(args);
}

}  // namespace siglip2::SIGLIP2_ISA
