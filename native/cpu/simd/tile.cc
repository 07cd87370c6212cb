#include "cpu/simd/tile.h"

namespace siglip2::SIGLIP2_ISA {
namespace {

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

template <int kRows>
void multiply_tile_up_to(int rows, const TileArgs& args) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return multiply_tile_up_to<kRows - 1>(rows, args);
  }
  multiply_tile_rows<kRows>(args);
}

}  // namespace

void multiply_tile(int rows, const TileArgs& args) {
  multiply_tile_up_to<kTileRows>(rows, args);
}

}  // namespace siglip2::SIGLIP2_ISA
