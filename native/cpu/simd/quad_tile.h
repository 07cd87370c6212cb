// The register tile (cpu/simd/tile.h) of 8-bit integers, accumulated in 32-bit integers, which is exact:
//
//   out[i][j] (+)= Σ_k a[i][k] · b[k][j]
//
// Weights are from −127 to 127 with a scale for each output, and lie as quads of neighbouring k, 32 bits for four.
// Rows are quantised when they are packed, each with a scale of its own: q = round(x · 127 / max |x|).
//
// vpdpbusd (AVX512-VNNI, AVX-VNNI) multiplies four unsigned bytes by four signed ones and adds the products to a sum:
// rows are then q + 128, and 128 Σ_k b[k][j], kept behind the weights of each panel, is taken off afterwards. Elsewhere
// weights are widened to 16 bits, whose products are added in pairs, or a matrix unit (cpu/simd/matrix_unit.h) takes
// both signed. Sums are the same to the bit everywhere.
#pragma once

#include <limits>

#include "cpu/product_method.h"
#include "cpu/simd/tile.h"

namespace siglip2::SIGLIP2_ISA {

// What follows the quads of a panel: [kTileColumns] scales, float32, and [kTileColumns] times 128 Σ_k b, 32-bit
// integers.
inline constexpr std::int64_t kQuadTailRows = 2;

// What this build's machine has and is to use; set before any other function is called.
void use_quad_products(cpu::ProductMethod method);

cpu::ProductMethod quad_product_method();

// How rows and quads of columns are packed.
const TileFormat& quad_format();

// `rows` is from 1 to those of the format; `a` is of quantize_rows, `b` has quads, `count` is of quads, and `out` is
// made of 32-bit integers. Within a MatrixUnitScope.
void multiply_quad_tile(int rows, const TileArgs& args);

// Quantises `rows` rows of `count` float32 values into panels for `a` above, with 0 behind the last value and anything
// beyond the last row, and scales [rows]. A row with a NaN or an infinity has the scale NaN. Up to kLanes floats behind
// the panels are overwritten.
void quantize_rows(const float* source, std::int64_t stride, std::int64_t rows, std::int64_t count, float* panels,
                   float* scales);

// A tile's finished sums to float32 in place: times the scales of its rows and of the panel whose tail is `tail`.
void scale_quad_tile(float* sums, std::int64_t rows, const float* tail, const float* row_scales);

// 127 / max and max / 127 of a row or an output; zeros where max is too small to divide by.
struct QuadScale {
  float inverse, scale;
  static QuadScale of(float largest, bool finite) {
    if (!finite) return {0.0f, std::numeric_limits<float>::quiet_NaN()};
    return largest > 1e-30f ? QuadScale{127.0f / largest, largest / 127.0f} : QuadScale{0.0f, 0.0f};
  }
};

}  // namespace siglip2::SIGLIP2_ISA
