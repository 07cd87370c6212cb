// Changes the element type of a matrix: output = input, rounded to nearest, ties to even, where the new type is
// smaller.
//
//   input, output  [rows, columns]  float32 or bfloat16; output is overwritten and must not overlap the input
#pragma once

#include "backend/op_table.h"
#include "tensor/matrix_view.h"

namespace siglip2 {

struct ConvertArgs {
  ConstMatrixView input;
  MatrixView output;
};

// Checks the arguments (ERR_SIGLIP_SHAPE) and runs the device's kernel.
void convert(const OpTable& table, OpContext& context, const ConvertArgs& args);

void convert_reference(OpContext& context, const ConvertArgs& args);

}  // namespace siglip2
