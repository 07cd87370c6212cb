// Linear layer: output = activation(input · weightᵀ + bias) + residual. On devices that fuse it (OpTable::fuses_gelu),
// with GELU of the input, output = activation(gelu(input) · weightᵀ + bias) + residual, or with the gradient of such a
// GELU, output = (input · weightᵀ + bias) ∘ gelu′(pre_activation) + residual, ∘ element by element.
//
//   input     [rows, in_features]   float32, or bfloat16 where the device computes in it
//   weight    [out_features, in_features], packed once by `pack_weight` in the layout the device's kernel streams
//             and in the input's type, or in another that the device takes (OpTable::weight_types): in bfloat16 beside
//             float32 input, whose values are then rounded to bfloat16 for the product; in int8, with a scale for
//             each output, beside float32 input that is quantised row by row: max |x| is 127 (a row or an output with
//             a value that is not finite gives NaN)
//   bias      [out_features]        float32, optional
//   residual  [rows, out_features]  the input's type, optional, added after the activation; may be the output itself
//   pre_activation  [rows, out_features]  the input's type, optional, without an activation; must not overlap the
//   output output    [rows, out_features]  the input's type, overwritten; must not overlap the input
//
// Beside a weight in bfloat16 and float32 activations, input, pre_activation and output may each be bfloat16 where the
// device has it (OpTable::rounded_operands): the input has been rounded by who made it, and the output is by this.
//
// Accumulation is float32. The order of the sum over in_features is fixed by the shape alone, never by the number of
// threads or rows, so a row gives the same bits in every batch.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/op_table.h"
#include "tensor/matrix_view.h"

namespace siglip2 {

enum class Activation : std::uint8_t {
  kNone,
  // 0.5 z (1 + tanh(√(2/π) (z + 0.044715 z³))), Hugging Face's gelu_pytorch_tanh
  kGeluTanh,
};

// Packs weights that are stacked along out_features (query over key over value, for one product). The parts are in
// host memory, row-major [out_i, in_features], float32, float16 or bfloat16, with no alignment; widening is exact.
struct PackWeightArgs {
  const ConstMatrixView* parts = nullptr;
  int part_count = 0;
  void* packed = nullptr;  // packed_weight_bytes(Σ out_i, in_features) bytes of device memory, overwritten
  // Packs the transposed stack instead, [in_features, Σ out_i], for the gradient of a layer's input: `packed` then has
  // packed_weight_bytes(in_features, Σ out_i) bytes, and `linear` with it computes grad_output · weight. Not in int8.
  bool transpose = false;
  DType dtype = DType::kFloat32;  // of the packed weight
  // The parts are in device memory (and aligned) instead.
  bool parts_on_device = false;
};

struct PackedWeight {
  const void* data = nullptr;
  std::int64_t out_features = 0;
  std::int64_t in_features = 0;
  DType dtype = DType::kFloat32;
};

struct LinearArgs {
  ConstMatrixView input;
  PackedWeight weight;
  const float* bias = nullptr;
  Activation activation = Activation::kNone;
  ConstMatrixView residual;  // data == nullptr: none
  MatrixView output;
  Activation input_activation = Activation::kNone;
  ConstMatrixView pre_activation = {};  // data == nullptr: none
};

// Gradients of a linear layer's parameters: grad_weight += grad_outputᵀ · input, grad_bias += Σ_rows grad_output.
//
//   input        [rows, in_features]            float32, or both bfloat16
//   grad_output  [rows, out_features]           the same type
//   grad_weight  [out_features, in_features]    float32, row-major, dense, accumulated into
//   grad_bias    [out_features]                 float32, accumulated into; optional
//
// `product_type` is what the operands of the product are multiplied in: the input's type, or bfloat16 beside float32
// where the device's weights may have it (OpTable::weight_types); then both are rounded to it for grad_weight, if they
// do not lie so (OpTable::rounded_operands, each by itself), and grad_bias is the sum of what lies there. A layer's is
// the type of its packed weight. With an activation of the input (OpTable::fuses_gelu), the layer's input is
// gelu(input).
//
// Accumulation is float32, in blocks of rows whose cut depends on the number of rows alone: results do not depend on
// the number of threads. rows == 0 adds nothing.
struct LinearBackwardArgs {
  ConstMatrixView input;
  ConstMatrixView grad_output;
  float* grad_weight = nullptr;
  float* grad_bias = nullptr;
  DType product_type = DType::kFloat32;
  Activation input_activation = Activation::kNone;
};

// Checks the arguments (ERR_SIGLIP_SHAPE) and runs the device's kernel. rows == 0 does nothing.
void linear(const OpTable& table, OpContext& context, const LinearArgs& args);
void pack_weight(const OpTable& table, OpContext& context, const PackWeightArgs& args);
void linear_backward(const OpTable& table, OpContext& context, const LinearBackwardArgs& args);

std::size_t packed_weight_bytes_reference(std::int64_t out_features, std::int64_t in_features, DType dtype);
void pack_weight_reference(OpContext& context, const PackWeightArgs& args);
void linear_reference(OpContext& context, const LinearArgs& args);
void linear_backward_reference(OpContext& context, const LinearBackwardArgs& args);

}  // namespace siglip2
