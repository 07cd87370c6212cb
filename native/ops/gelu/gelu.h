// GELU in its tanh form, element by element: 0.5 z (1 + tanh(√(2/π) (z + 0.044715 z³))).
//
//   input, output  [rows, columns]  float32, or both bfloat16 where the device computes in it; output is overwritten
//   and may be the input
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

// grad_input = grad_output · gelu′(input), with gelu′(z) = ½(1 + tanh u) + ½ z (1 − tanh² u) u′,
// u = √(2/π)(z + 0.044715 z³), u′ = √(2/π)(1 + 0.134145 z²).
//
//   input, grad_output  [rows, columns]  float32, or all bfloat16
//   grad_input          [rows, columns]  the same type, overwritten; may be grad_output
//
// Absolute error of the derivative (which is of order 1) at most some 1e-6; 0 at −∞ and 1 at +∞.
struct GeluBackwardArgs {
  ConstMatrixView input;
  ConstMatrixView grad_output;
  MatrixView grad_input;
};

void gelu(const OpTable& table, OpContext& context, const GeluArgs& args);
void gelu_backward(const OpTable& table, OpContext& context, const GeluBackwardArgs& args);

void gelu_reference(OpContext& context, const GeluArgs& args);
void gelu_backward_reference(OpContext& context, const GeluBackwardArgs& args);

}  // namespace siglip2
