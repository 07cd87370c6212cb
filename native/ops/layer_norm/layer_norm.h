// Layer normalisation over features: output = (input - mean) / √(variance + epsilon) · weight + bias.
//
//   input, output  [rows, width]  float32, or both bfloat16 where the device computes in it; output is overwritten and
//                                 may be the input. The output may be bfloat16 beside float32 where products take it
//                                 so (OpTable::rounded_operands)
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

// The parameters of a layer norm that is a part of another operation; without weight there is none.
struct NormParameters {
  const float* weight = nullptr;  // [width] float32, and so is
  const float* bias = nullptr;
  float epsilon = 1e-6f;
};

// Gradients of layer normalisation. With x̂ = (input − mean)/√(variance + epsilon) and g = grad_output · weight:
//
//   grad_input = (g − mean(g) − x̂ · mean(g · x̂)) / √(variance + epsilon)
//   grad_weight += Σ_rows grad_output · x̂,   grad_bias += Σ_rows grad_output
//
//   input, grad_output       [rows, width]  float32, or all bfloat16
//   grad_input               [rows, width]  the same type, overwritten, or added to when `accumulate` is set (the
//   residual
//                            path around the layer); must not overlap grad_output or input
//   grad_weight, grad_bias   [width]        float32, accumulated into; both or neither
//   statistics               [rows, 2]      float32 workspace, overwritten
//
// Sums over rows run in order in float32 or better; results do not depend on the number of threads.
struct LayerNormBackwardArgs {
  ConstMatrixView input;
  const float* weight = nullptr;
  float epsilon = 1e-6f;
  ConstMatrixView grad_output;
  MatrixView grad_input;
  bool accumulate = false;
  float* grad_weight = nullptr;
  float* grad_bias = nullptr;
  MatrixView statistics;
};

void layer_norm(const OpTable& table, OpContext& context, const LayerNormArgs& args);
void layer_norm_backward(const OpTable& table, OpContext& context, const LayerNormBackwardArgs& args);

void layer_norm_reference(OpContext& context, const LayerNormArgs& args);
void layer_norm_backward_reference(OpContext& context, const LayerNormBackwardArgs& args);

}  // namespace siglip2
