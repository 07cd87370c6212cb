// Matrix products by cuBLASLt, which is opened at run time: machines without it use the kernels of ops/linear.
//
//   D = activation(factor · A · Bᵀ + bias + C)      accumulated in float32, without TF32
//
//   a     [rows, depth], or [depth, rows] when `a_transposed`          float32 or bfloat16
//   b     [columns, depth], or [depth, columns] when `b_transposed`    a's type
//   bias  [columns]                                                    float32, optional
//   c     [rows, columns]                                              d's type, optional; may be d itself (to add to
//   it) d     [rows, columns]                                              float32, or a's type
//
// All row-major, rows `stride` values apart. So a linear layer is a = input, b = weight; the gradient of its input a =
// grad_output, b = weight with `b_transposed`; and that of its weight a = grad_output, b = input, both transposed, c =
// d.
//
// cuBLASLt wants the bias in the type of d: for bfloat16 it is rounded first, in a copy. Adding it in float32 would
// take another pass over d, which costs more time than the products of small batches, and rounds twice.
#pragma once

#include "backend/op_table.h"
#include "tensor/matrix_view.h"

namespace siglip2::cuda {

struct MatmulArgs {
  ConstMatrixView a;
  ConstMatrixView b;
  bool a_transposed = false;
  bool b_transposed = false;
  const float* bias = nullptr;
  bool gelu = false;  // gelu_pytorch_tanh; not together with c
  ConstMatrixView c;
  MatrixView d;
  float factor = 1;
};

// Queues the product. False, and nothing is queued, when cuBLASLt is not there or has no algorithm for these arguments;
// the caller then runs its own kernel. Also false while planning, after counting cuBLASLt's memory, so that the caller
// counts its own too. On the emulated device only for tests (simt/simt_runtime.cc).
bool matmul(OpContext& context, const MatmulArgs& args);

// Whether there is a library that most products can be left to.
bool matmul_available(OpContext& context);

}  // namespace siglip2::cuda
