// A transformer block's second half in one operation, with no intermediate activations in memory:
//
//   output = residual + fc2(gelu_tanh(fc1(layer_norm(input))))
//
//   input, output, residual  [rows, width]          float32, or bfloat16 where the device computes in it; output is
//                                                   overwritten, and may be input and residual
//   fc1                      [intermediate, width]  packed weights of one type (ops/linear), biases float32, optional
//   fc2                      [width, intermediate]
//   norm                     of the input; without weight there is none
//
// The same bits as layer_norm, linear with GELU and linear with residual one after the other.
#pragma once

#include "ops/layer_norm/layer_norm.h"
#include "ops/linear/linear.h"

namespace siglip2 {

struct MlpArgs {
  ConstMatrixView input;
  NormParameters norm;
  PackedWeight fc1;
  const float* fc1_bias = nullptr;
  PackedWeight fc2;
  const float* fc2_bias = nullptr;
  ConstMatrixView residual;  // data == nullptr: none
  MatrixView output;
};

// Whether the device has this operation, and gains by it with as many rows: there must be enough for every core, since
// each block of rows meets all of the weights.
bool fuses_mlp(const OpTable& table, std::int64_t rows);

// Throws ERR_SIGLIP_SHAPE when the arguments do not fit each other.
void check_mlp(const OpTable& table, const MlpArgs& args);

// Only on devices that have it. Checks the arguments and runs the kernel. rows == 0 does nothing.
void mlp(const OpTable& table, OpContext& context, const MlpArgs& args);

}  // namespace siglip2
