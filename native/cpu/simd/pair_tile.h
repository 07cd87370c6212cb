// The register tile (cpu/simd/tile.h) of bfloat16 operands, accumulated in float32:
//
//   out[i][j] (+)= Σ_k a[i][k] · b[k][j]
//
// Weights lie as pairs of neighbouring k, 32 bits for both: what the instruction vdpbf16ps takes (AVX512-BF16), and
// what other machines widen by a shift and a mask, two operations that a tile's rows share. Products of two bfloat16
// numbers are exact in float32. vdpbf16ps adds the two of a pair before it adds them to the sum, and takes subnormal
// numbers for 0; the others add one after the other. So last bits differ between instruction sets, and only between
// them. Where there is a matrix unit (cpu/simd/matrix_unit.h) it makes the tile.
#pragma once

#include "cpu/product_method.h"
#include "cpu/simd/operand.h"
#include "cpu/simd/tile.h"

namespace siglip2::SIGLIP2_ISA {

// What this build's machine has and is to use; set before any other function is called.
void use_pair_products(cpu::ProductMethod method);

cpu::ProductMethod pair_product_method();

// How rows and pairs of columns are packed.
const TileFormat& pair_format();

// `rows` is from 1 to those of the format; `a` is of pack_pair_rows, `b` has pairs, and `count` is of pairs. Within a
// MatrixUnitScope.
void multiply_pair_tile(int rows, const TileArgs& args);

// Lays `rows` rows of `count` values, rounded to bfloat16, out as panels for `a` above, with 0 behind the last value
// and anything beyond the last row. Up to kLanes floats behind the panels are overwritten.
void pack_pair_rows(const Operand& source, std::int64_t rows, std::int64_t count, float* panels);

}  // namespace siglip2::SIGLIP2_ISA
