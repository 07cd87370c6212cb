#include "cpu/simd/tile.h"

namespace siglip2::SIGLIP2_ISA {
namespace {

template <int kRows>
void multiply_tile_rows(const TileArgs& args) {
  // Copies, since the stores below could change what `args` refers to for all the compiler knows.
  const float* const a = args.a;
  const float* const b = args.b;
  const std::int64_t count = args.count, out_stride = args.out_stride;
  float* const out = args.out;
  const bool accumulate = args.accumulate;
  Vec sums[kRows][kTileVectors];
  SIGLIP2_UNROLL for (int i = 0; i < kRows; ++i) {
    SIGLIP2_UNROLL for (int v = 0; v < kTileVectors; ++v) sums[i][v] = zero();
  }
  const auto add_product = [&](std::int64_t k) __attribute__((always_inline)) {
    Vec columns[kTileVectors];
    SIGLIP2_UNROLL for (int v = 0; v < kTileVectors; ++v) columns[v] = load(b + k * kTileColumns + v * kLanes);
    SIGLIP2_UNROLL for (int i = 0; i < kRows; ++i) {
      const Vec x = broadcast(a[k * kTileRows + i]);
      SIGLIP2_UNROLL for (int v = 0; v < kTileVectors; ++v) sums[i][v] = multiply_add(x, columns[v], sums[i][v]);
    }
  };
  std::int64_t k = 0;
  for (; k + kTileSteps <= count; k += kTileSteps) {
    SIGLIP2_UNROLL for (int step = 0; step < kTileSteps; ++step) add_product(k + step);
  }
  for (; k < count; ++k)
    add_product(k);

  if (accumulate) {
    SIGLIP2_UNROLL for (int i = 0; i < kRows; ++i) {
      SIGLIP2_UNROLL for (int v = 0; v < kTileVectors; ++v) {
        sums[i][v] = load(out + i * out_stride + v * kLanes) + sums[i][v];
      }
    }
  }
  SIGLIP2_UNROLL for (int i = 0; i < kRows; ++i) {
    SIGLIP2_UNROLL for (int v = 0; v < kTileVectors; ++v) store(out + i * out_stride + v * kLanes, sums[i][v]);
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

void pack_rows(const float* source, std::int64_t stride, std::int64_t rows, std::int64_t count, float* panels) {
  for (std::int64_t row = 0; row < rows; row += kTileRows) {
    float* const panel = panels + row * count;
    const std::int64_t tile_rows = rows - row < kTileRows ? rows - row : kTileRows;
    for (std::int64_t k = 0; k < count; k += kLanes) {
      const int lanes = static_cast<int>(count - k < kLanes ? count - k : kLanes);
      Vec square[kLanes];
      const float* const first = source + row * stride + k;
      load_square(tile_rows, square, [&](std::int64_t i) __attribute__((always_inline)) {
        return lanes == kLanes ? load(first + i * stride) : load_first(first + i * stride, lanes);
      });
      // Each store's surplus lanes are overwritten by the next.
      float* const target = panel + k * kTileRows;
      if (lanes == kLanes) {
        SIGLIP2_UNROLL for (int j = 0; j < kLanes; ++j) store(target + j * kTileRows, square[j]);
      } else {
        SIGLIP2_UNROLL for (int j = 0; j < kLanes; ++j) {
          if (j < lanes) store(target + j * kTileRows, square[j]);
        }
      }
    }
  }
}

}  // namespace siglip2::SIGLIP2_ISA
