// Linear layers on GPUs: a product of matrices whose epilogue adds the bias, applies the activation and adds the
// residual.
//
// Floor: 2 · rows · in_features · out_features operations at the speed of the tensor cores (bfloat16), from some 300
// rows on; below, one read of the weight. Bias, activation and residual cost no pass of their own.
//
// Plan: cuBLASLt, where it is there (cuda/cublaslt.h). Else cuda/matrix_product.cuh with rows of the input against rows
// of the packed weight, which is stored as it is in a checkpoint (pack_weight_cuda.cu). A thread loads its eight biases
// once, and reads the residual and writes the output 16 bytes at a time.
#include "ops/linear/linear.h"

#include "cuda/cublaslt.h"
#include "cuda/dtype_switch.h"
#include "cuda/gelu_tanh.cuh"
#include "cuda/kernels.h"
#include "cuda/matrix_product.cuh"
#include "ops/linear/packed_weight.cuh"

namespace siglip2::cuda {
namespace {

template <typename T>
struct LinearEpilogue : PlainEpilogue {
  const float* bias;  // may be null
  const T* residual;  // may be null
  std::int64_t residual_stride;
  T* output;
  std::int64_t output_stride;
  std::int64_t rows;
  std::int64_t out_features;
  bool gelu;
  bool bias_vectors;
  bool vectors;  // of residual and output

  template <int N>
  struct Columns {
    float bias[N];
  };

  template <int N>
  __device__ __forceinline__ Columns<N> columns(std::int64_t column) const {
    Columns<N> result = {};
    if (bias != nullptr) load_values(bias + column, result.bias, bias_vectors, out_features - column);
    return result;
  }

  template <int N>
  __device__ __forceinline__ void row(const Columns<N>& columns, std::int64_t row, std::int64_t column,
                                      float (&values)[N]) const {
    if (!in_bounds(row < rows)) return;
    const std::int64_t left = out_features - column;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      values[i] += columns.bias[i];
      if (gelu) values[i] = gelu_tanh<sizeof(T) == 2>(values[i]);
    }
    if (residual != nullptr) {
      float more[N];
      load_values(residual + row * residual_stride + column, more, vectors, left);
#pragma unroll
      for (int i = 0; i < N; ++i)
        values[i] += more[i];
    }
    store_values(output + row * output_stride + column, values, vectors, left);
  }
};

template <typename T>
void multiply(OpContext& context, const LinearArgs& args) {
  const std::int64_t rows = args.input.rows, out_features = args.weight.out_features;
  LinearEpilogue<T> epilogue;
  epilogue.bias = args.bias;
  epilogue.residual = args.residual.as<T>();
  epilogue.residual_stride = args.residual.stride;
  epilogue.output = args.output.as<T>();
  epilogue.output_stride = args.output.stride;
  epilogue.rows = rows;
  epilogue.out_features = out_features;
  epilogue.gelu = args.activation == Activation::kGeluTanh;
  epilogue.bias_vectors = rows_aligned(args.bias, 0, sizeof(float));
  epilogue.vectors =
      rows_aligned(args.output.data, args.output.stride, sizeof(T)) &&
      (args.residual.data == nullptr || rows_aligned(args.residual.data, args.residual.stride, sizeof(T)));
  multiply_matrices<false, false>(context, "linear", {rows, out_features, args.weight.in_features},
                                  make_operand<T>(args.input), make_operand<T>(matrix_of(args.weight)), epilogue,
                                  {reads(args.bias, out_features), reads(args.residual), writes(args.output)});
}

// Whether the product is left to cuBLASLt, where there is one. It adds no residual after a GELU; and the GELU of its
// kernels for results that are not aligned to 16 bytes erred by more than rounding and the chip's tanh explain (H100:
// 0.6 % of the largest result in bfloat16).
bool suits_vendor(const LinearArgs& args) {
  if (args.activation != Activation::kGeluTanh) return true;
  return args.residual.data == nullptr &&
         rows_aligned(args.output.data, args.output.stride, size_of(args.output.dtype));
}

}  // namespace

void linear_cuda(OpContext& context, const LinearArgs& args) {
  ConstMatrixView weight = matrix_of(args.weight);
  weight.columns = args.weight.in_features;
  const bool gelu = args.activation == Activation::kGeluTanh;
  if (suits_vendor(args) &&
      matmul(context, {args.input, weight, false, false, args.bias, gelu, args.residual, args.output})) {
    return;
  }
  with_activation_type(args.output.dtype, [&](auto type) { multiply<decltype(type)>(context, args); });
}

}  // namespace siglip2::cuda
