// Scales every row to unit Euclidean length: output = input / ‖input‖₂.
//
//   input, output  [rows, width]  each float32, or bfloat16 where the device computes in it; output is overwritten and
//                                 may be the input
//
// The norm is accumulated so that no square overflows or vanishes for any finite row (double precision). A row of zeros
// stays zero.
#pragma once

#include "backend/op_table.h"
#include "tensor/matrix_view.h"

namespace siglip2 {

struct L2NormalizeArgs {
  ConstMatrixView input;
  MatrixView output;
};

// Gradient of the scaling: with y = input / ‖input‖, grad_input = (grad_output − (grad_output · y) y) / ‖input‖.
//
//   input, grad_output  [rows, width]  each float32 or bfloat16; `input` as it was before the scaling
//   grad_input          [rows, width]  either type, overwritten; may be grad_output
//
// Accumulated in double precision. The gradient of a row of zeros, where the function has none, is 0.
struct L2NormalizeBackwardArgs {
  ConstMatrixView input;
  ConstMatrixView grad_output;
  MatrixView grad_input;
};

void l2_normalize(const OpTable& table, OpContext& context, const L2NormalizeArgs& args);
void l2_normalize_backward(const OpTable& table, OpContext& context, const L2NormalizeBackwardArgs& args);

void l2_normalize_reference(OpContext& context, const L2NormalizeArgs& args);
void l2_normalize_backward_reference(OpContext& context, const L2NormalizeBackwardArgs& args);

}  // namespace siglip2
