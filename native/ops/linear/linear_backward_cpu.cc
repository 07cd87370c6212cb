// Gradients of a linear layer's parameters on CPUs.
//
// Plan. grad_weight += grad_outputᵀ · input is a product of matrices that are needed once (cpu/simd/matrix_product.h),
// with the rows as the depth of its sums, in pairs of rows where operands are rounded to bfloat16. Bias gradients are
// sums down columns: a task owns a few vectors of columns and walks down all rows, in four partial sums.
//
// Floor: rows·in·out multiply-adds at two vectors a cycle, with vdpbf16ps two for each lane; for few rows a read and a
// write of grad_weight.
#include "cpu/kernels.h"
#include "cpu/simd/matrix_product.h"
#include "cpu/thread_pool.h"
#include "ops/linear/linear.h"

namespace siglip2::SIGLIP2_ISA {
namespace {

constexpr int kBiasVectors = 4;
constexpr std::int64_t kBiasColumns = kBiasVectors * kLanes;

// Adds the sums of columns [first, first + columns), at most kBiasColumns, to grad_bias.
void add_column_sums(const LinearBackwardArgs& args, std::int64_t first, std::int64_t columns) {
  constexpr int kPartialSums = 4;
  const ConstMatrixView& grad = args.grad_output;
  for (int v = 0; v < kBiasVectors && v * kLanes < columns; ++v) {
    const std::int64_t left = columns - v * kLanes;
    const int lanes = static_cast<int>(left < kLanes ? left : kLanes);
    const float* const source = grad.as<float>() + first + v * kLanes;
    Vec sums[kPartialSums] = {zero(), zero(), zero(), zero()};
    for (std::int64_t row = 0; row < grad.rows; ++row) {
      const float* const values = source + row * grad.stride;
      Vec& sum = sums[row % kPartialSums];
      sum = sum + (lanes == kLanes ? load(values) : load_first(values, lanes));
    }
    float* const target = args.grad_bias + first + v * kLanes;
    const Vec total = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    store_first(target, load_first(target, lanes) + total, lanes);
  }
}

}  // namespace

void linear_backward_cpu(OpContext& context, const LinearBackwardArgs& args) {
  const std::int64_t in_features = args.input.columns, out_features = args.grad_output.columns;
  MatrixProductArgs product;
  product.a = args.grad_output.as<float>();
  product.a_stride = args.grad_output.stride;
  product.a_transposed = true;
  product.b = args.input.as<float>();
  product.b_stride = args.input.stride;
  product.rows = out_features;
  product.columns = in_features;
  product.depth = args.input.rows;
  product.scale = 1.0f;
  product.out = args.grad_weight;
  product.out_stride = in_features;
  product.accumulate = true;
  product.pairs = args.product_type == DType::kBFloat16;
  multiply_matrices(product, context.threads);

  if (args.grad_bias == nullptr) return;
  const std::int64_t tasks = (out_features + kBiasColumns - 1) / kBiasColumns;
  cpu::parallel_for(tasks, context.threads, [&](std::int64_t task, int) {
    const std::int64_t first = task * kBiasColumns;
    add_column_sums(args, first, out_features - first < kBiasColumns ? out_features - first : kBiasColumns);
  });
}

}  // namespace siglip2::SIGLIP2_ISA
