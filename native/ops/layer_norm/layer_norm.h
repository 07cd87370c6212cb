// Layer normalisation over features: output = (input - mean) / √(variance + epsilon) · weight + bias.
//
//   input, output  [rows, width]  float32; output is overwritten and may be the input
//   weight, bias   [width]        float32
//
// Mean and (biased) variance of a row are computed in two passes, accumulated in float32 or better.
#pragma once

#include "backend/op_table.h"
#include "tensor/matrix_view.h"

namespace siglip2 {

struct LayerNormArgs {
  ConstMatrixView input;
  const float* weight = nullptr;
  const float* bias = nullptr;
  float epsilon = 1e-6f;
  MatrixView output;
};

void layer_norm(const OpTable& table, OpContext& context, const LayerNormArgs& args);

void layer_norm_reference(OpContext& context, const LayerNormArgs& args);

}  // namespace siglip2
