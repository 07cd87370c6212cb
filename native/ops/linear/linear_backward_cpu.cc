// Gradients of a linear layer's parameters on CPUs.
//
// Plan. grad_weight += grad_outputᵀ · input is a product of matrices that are needed once (cpu/simd/matrix_product.h),
// with the rows as the depth of its sums, in pairs of rows where operands are rounded to bfloat16. Bias gradients are
// summed up as grad_output is packed, block by block of the depth.
//
// Floor: rows·in·out multiply-adds at two vectors a cycle, with vdpbf16ps two for each lane; for few rows a read and a
// write of grad_weight.
#include "cpu/kernels.h"
#include "cpu/simd/matrix_product.h"
#include "ops/linear/linear.h"

namespace siglip2::SIGLIP2_ISA {

void linear_backward_cpu(OpContext& context, const LinearBackwardArgs& args) {
  const std::int64_t in_features = args.input.columns, out_features = args.grad_output.columns;
  MatrixProductArgs product;
  product.a = args.grad_output;
  product.a_transposed = true;
  product.b = args.input;
  product.rows = out_features;
  product.columns = in_features;
  product.depth = args.input.rows;
  product.scale = 1.0f;
  product.out = args.grad_weight;
  product.out_stride = in_features;
  product.accumulate = true;
  product.b_gelu = args.input_activation == Activation::kGeluTanh;
  product.pairs = args.product_type == DType::kBFloat16;
  product.a_sums = args.grad_bias;
  multiply_matrices(product, context.threads);
}

}  // namespace siglip2::SIGLIP2_ISA
