// Gradients of linear layers' parameters on GPUs.
//
// Floor: of the weight, 2 · rows · in_features · out_features operations at the speed of the tensor cores (bfloat16),
// and one read and write of the float32 gradient. Of the bias, one read of grad_output.
//
// Plan: the weight's gradient is a product over the rows, with both operands stored depth first: by cuBLASLt, where it
// is there (cuda/cublaslt.h), else by cuda/matrix_sum.cuh.
// The bias's: a block sums 256 rows of 128 columns (32 where rows are not aligned), a lane four neighbouring columns
// and a warp every eighth row; warps' sums are added in order in shared memory, blocks' in a second launch.
#include "cuda/cublaslt.h"
#include "cuda/dtype_switch.h"
#include "cuda/kernels.h"
#include "cuda/matrix_sum.cuh"
#include "ops/linear/linear.h"

namespace siglip2::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;
constexpr int kRowsOfBlock = 256;

// blockIdx.x: rows; blockIdx.y: columns. `sums`: a row of `sums_stride` for each block of rows.
template <typename T, int kColumns>
__global__ void __launch_bounds__(kThreads)
    column_sums_kernel(Operand<T> matrix, float* sums, std::int64_t sums_stride) {
  float* const warp_sums = reinterpret_cast<float*>(shared_memory());
  const int lane = lane_index(), warp = warp_index();
  const std::int64_t first_row = std::int64_t{blockIdx.x} * kRowsOfBlock;
  const std::int64_t column = (std::int64_t{blockIdx.y} * kWarpSize + lane) * kColumns;
  const bool exists = in_bounds(column < matrix.columns);
  float total[kColumns] = {};
#pragma unroll 4
  for (int i = warp; i < kRowsOfBlock; i += kWarps) {
    if (exists && in_bounds(first_row + i < matrix.rows)) {
      const auto values = load_vector<kColumns>(matrix.data + (first_row + i) * matrix.stride + column);
#pragma unroll
      for (int j = 0; j < kColumns; ++j)
        total[j] += to_float(values[j]);
    }
  }
#pragma unroll
  for (int j = 0; j < kColumns; ++j)
    warp_sums[(warp * kColumns + j) * kWarpSize + lane] = total[j];
  block_barrier();
  if (warp != 0 || !exists) return;
#pragma unroll
  for (int j = 0; j < kColumns; ++j) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kWarps; ++i)
      sum += warp_sums[(i * kColumns + j) * kWarpSize + lane];
    sums[blockIdx.x * sums_stride + column + j] = sum;
  }
}

template <typename T>
void add_column_sums(OpContext& context, const ConstMatrixView& matrix, float* result) {
  const std::int64_t parts = divide_up(matrix.rows, kRowsOfBlock);
  const std::int64_t stride = round_up(matrix.columns, 4);
  Scratch scratch(context);
  float* const sums = scratch.allocate<float>(parts * stride);
  const auto start = [&](auto kernel, int columns) {
    launch(context, "linear_backward", kernel,
           {parts, kThreads, kThreads * sizeof(float) * static_cast<std::size_t>(columns),
            divide_up(matrix.columns, kWarpSize * columns)},
           {reads(matrix), writes(MatrixView{sums, DType::kFloat32, parts, matrix.columns, stride})},
           make_operand<T>(matrix), sums, stride);
  };
  if (rows_aligned(matrix.data, matrix.stride, sizeof(T), 4 * sizeof(T)) && matrix.columns % 4 == 0) {
    start(column_sums_kernel<T, 4>, 4);
  } else {
    start(column_sums_kernel<T, 1>, 1);
  }
  sum_parts(context, "linear_backward", sums, parts, {result, DType::kFloat32, 1, matrix.columns, matrix.columns}, 1,
            true);
}

template <typename T>
void add_gradients(OpContext& context, const LinearBackwardArgs& args) {
  const std::int64_t in_features = args.input.columns, out_features = args.grad_output.columns;
  const MatrixView grad_weight = {args.grad_weight, DType::kFloat32, out_features, in_features, in_features};
  if (!matmul(context, {args.grad_output, args.input, true, true, nullptr, false, grad_weight, grad_weight})) {
    multiply_into<true, true>(context, "linear_backward", make_operand<T>(args.grad_output),
                              make_operand<T>(args.input), args.input.rows, grad_weight, 1, true);
  }
  if (args.grad_bias != nullptr) add_column_sums<T>(context, args.grad_output, args.grad_bias);
}

}  // namespace

void linear_backward_cuda(OpContext& context, const LinearBackwardArgs& args) {
  with_activation_type(args.input.dtype, [&](auto type) { add_gradients<decltype(type)>(context, args); });
}

}  // namespace siglip2::cuda
