// A product of matrices that are needed once, so that packing them beforehand would only take memory: blocks are packed
// on the way, into the scratch memory of the threads.
#pragma once

#include "cpu/simd/operand.h"

namespace siglip2::SIGLIP2_ISA {

// out = scale · A · B, or out += scale · A · B. Sums over `depth` run in float32 over blocks whose cut depends on
// `depth` alone: results do not depend on the number of threads.
struct MatrixProductArgs {
  Operand a;  // A[i][k] in row i and column k; when a_transposed, in row k and column i
  bool a_transposed;
  Operand b;  // B[k][j] in row k and column j
  std::int64_t rows;
  std::int64_t columns;
  std::int64_t depth;
  float scale;
  float* out;  // out[i][j] at out[i·out_stride + j]; no overlap with a or b
  std::int64_t out_stride;
  bool accumulate;
  // Both operands are rounded to bfloat16 as they are packed, in pairs (cpu/simd/pair_tile.h), if they do not lie so;
  // with a_transposed only. Otherwise they are float32.
  bool pairs = false;
  // Σ_k A[i][k], as it lies in memory, is added to a_sums[i]; with a_transposed only. Null: not wanted.
  float* a_sums = nullptr;
  // B is GELU, in its tanh form, of the values at b: the short one (cpu/simd/simd_math.h) where operands are rounded.
  bool b_gelu = false;
};

void multiply_matrices(const MatrixProductArgs& args, int threads);

}  // namespace siglip2::SIGLIP2_ISA
