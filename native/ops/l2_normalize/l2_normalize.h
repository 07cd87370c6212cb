// Scales every row to unit Euclidean length: output = input / ‖input‖₂.
//
//   input, output  [rows, width]  float32; output is overwritten and may be the input
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

void l2_normalize(const OpTable& table, OpContext& context, const L2NormalizeArgs& args);

void l2_normalize_reference(OpContext& context, const L2NormalizeArgs& args);

}  // namespace siglip2
