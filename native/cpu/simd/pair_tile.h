// The register tile (cpu/simd/tile.h) of bfloat16 operands, accumulated in float32:
//
//   out[i][j] (+)= Σ_k a[i][k] · b[k][j]
//
// Weights lie as pairs of neighbouring k, 32 bits for both: what the instruction vdpbf16ps takes (AVX512-BF16), and
// what other machines widen by a shift and a mask, two operations that a tile's rows share. Products of two bfloat16
// numbers are exact in float32. vdpbf16ps adds the two of a pair before it adds them to the sum, and takes subnormal
// numbers for 0; the others add one after the other. So last bits differ between instruction sets, and only between
// them.
#pragma once

#include "cpu/simd/tile.h"

namespace siglip2::SIGLIP2_ISA {

// Whether this build's machine has vdpbf16ps and it is to be used; set before any other function is called.
void use_pair_products(bool use);

// 32-bit words of a pair of a row as packed by pack_pair_rows: 1 where pairs are multiplied as they are, else 2.
std::int64_t pair_words();

// `rows` is from 1 to kTileRows; `a` is of pack_pair_rows, `b` has pairs, and `count` is of pairs.
void multiply_pair_tile(int rows, const TileArgs& args);

// Lays `rows` rows of `count` float32 values, rounded to bfloat16, out as panels for `a` above: [⌈rows/kTileRows⌉]
// [⌈count/2⌉ · pair_words()][kTileRows], with 0 in an odd row's last pair and anything beyond the last row. Up to
// kLanes floats behind the panels are overwritten.
void pack_pair_rows(const float* source, std::int64_t stride, std::int64_t rows, std::int64_t count, float* panels);

}  // namespace siglip2::SIGLIP2_ISA
