// GELU in its tanh form, element by element: 0.5 z (1 + tanh(√(2/π) (z + 0.044715 z³))).
//
//   input, output  [rows, columns]  float32; output is overwritten and may be the input
//
// Relative error at most a few units in the last place, also for large |z|; NaN and infinities as the formula gives
// them (−∞ → −0).
#pragma once

#include "backend/op_table.h"
#include "tensor/matrix_view.h"

namespace siglip2 {

struct GeluArgs {
  ConstMatrixView input;
  MatrixView output;
};

void gelu(const OpTable& table, OpContext& context, const GeluArgs& args);

void gelu_reference(OpContext& context, const GeluArgs& args);

}  // namespace siglip2
