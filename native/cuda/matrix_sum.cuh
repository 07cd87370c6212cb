// Products of matrices into float32: result (+)= factor · a · bᵀ, for gradients. Deep products of small results, as
// most gradients of weights are, would leave most of a chip idle: their depth is cut into parts, whose sums are added
// in order in a second launch. The size alone decides the cut, so results are the same on every chip.
//
// Floor: that of the product. The parts cost a write and a read of at most 16 MB, and a launch.
#pragma once

#include <algorithm>

#include "cuda/matrix_product.cuh"
#include "cuda/scratch.h"

namespace siglip2::cuda {

// Float32 results; of a cut depth each part its own.
struct SumEpilogue {
  float* output;
  std::int64_t stride;
  std::int64_t part_stride;
  std::int64_t rows;
  std::int64_t column_count;
  float factor;
  bool accumulate;
  bool vectors;

  struct Columns {};

  __device__ __forceinline__ void start(const BlockPosition& position) { output += position.part * part_stride; }
  __device__ __forceinline__ void finish(unsigned char*) {}
  template <int N>
  __device__ __forceinline__ Columns columns(std::int64_t) const {
    return {};
  }
  template <int N>
  __device__ __forceinline__ void row(Columns, std::int64_t row, std::int64_t column, float (&values)[N]) const {
    if (!in_bounds(row < rows)) return;
    float* const to = output + row * stride + column;
    const std::int64_t left = column_count - column;
    float before[N] = {};
    if (accumulate) load_values(to, before, vectors, left);
#pragma unroll
    for (int i = 0; i < N; ++i)
      values[i] = before[i] + factor * values[i];
    store_values(to, values, vectors, left);
  }
};

namespace detail {

constexpr int kSumThreads = 256;
constexpr int kSumValues = 4;  // of a thread

// Sums of `parts` matrices, in order. Their rows take kSumValues · groups_of_row values.
template <typename Epilogue>
__global__ void __launch_bounds__(kSumThreads)
    sum_parts_kernel(const float* sums, std::int64_t parts, std::int64_t groups_of_row, std::int64_t groups,
                     Epilogue epilogue) {
  const std::int64_t group = std::int64_t{blockIdx.x} * kSumThreads + threadIdx.x;
  if (!in_bounds(group < groups)) return;
  const std::int64_t column = group % groups_of_row * kSumValues;
  float total[kSumValues] = {};
  for (std::int64_t part = 0; part < parts; ++part) {
    float values[kSumValues];
    load_values(sums + (part * groups + group) * kSumValues, values, true, epilogue.column_count - column);
#pragma unroll
    for (int i = 0; i < kSumValues; ++i)
      total[i] += values[i];
  }
  epilogue.row({}, group / groups_of_row, column, total);
}

}  // namespace detail

constexpr std::int64_t round_up(std::int64_t a, std::int64_t b) {
  return divide_up(a, b) * b;
}

// Into how many parts the depth is cut: enough for two blocks on each of some 130 multiprocessors, but parts are no
// shorter than 1024, below which the second launch would cost as much as it saves.
inline std::int64_t parts_of(std::int64_t rows, std::int64_t columns, std::int64_t depth) {
  constexpr std::int64_t kBlocks = 256, kLeastDepth = 1024;
  const std::int64_t tiles = divide_up(rows, 128) * divide_up(columns, 128);
  if (2 * tiles > kBlocks) return 1;
  return std::max<std::int64_t>(1, std::min(kBlocks / tiles, depth / kLeastDepth));
}

// result (+)= factor · the sum of `parts` matrices, which are dense but for rows rounded up to four values.
inline void sum_parts(OpContext& context, const char* name, const float* sums, std::int64_t parts,
                      const MatrixView& result, float factor, bool accumulate) {
  const std::int64_t groups_of_row = divide_up(result.columns, detail::kSumValues);
  const std::int64_t groups = groups_of_row * result.rows;
  const SumEpilogue epilogue = {
      result.as<float>(), result.stride, 0,          result.rows,
      result.columns,     factor,        accumulate, rows_aligned(result.data, result.stride, sizeof(float))};
  launch(context, name, detail::sum_parts_kernel<SumEpilogue>,
         {divide_up(groups, detail::kSumThreads), detail::kSumThreads},
         {reads(ConstMatrixView{sums, DType::kFloat32, parts * result.rows, result.columns,
                                groups_of_row * detail::kSumValues}),
          writes(result)},
         sums, parts, groups_of_row, groups, epilogue);
}

// result (+)= factor · a · bᵀ over `depth`.
template <bool kATransposed, bool kBTransposed, typename T>
void multiply_into(OpContext& context, const char* name, const Operand<T>& a, const Operand<T>& b, std::int64_t depth,
                   const MatrixView& result, float factor, bool accumulate) {
  const std::int64_t parts = parts_of(result.rows, result.columns, depth);
  SumEpilogue epilogue = {
      result.as<float>(), result.stride, 0,          result.rows,
      result.columns,     factor,        accumulate, rows_aligned(result.data, result.stride, sizeof(float))};
  if (parts == 1) {
    multiply_matrices<kATransposed, kBTransposed>(context, name, {result.rows, result.columns, depth}, a, b, epilogue,
                                                  {writes(result)});
    return;
  }
  Scratch scratch(context);
  epilogue.stride = round_up(result.columns, detail::kSumValues);
  epilogue.part_stride = epilogue.stride * result.rows;
  epilogue.output = scratch.allocate<float>(parts * epilogue.part_stride);
  epilogue.factor = 1;
  epilogue.accumulate = false;
  epilogue.vectors = true;
  multiply_matrices<kATransposed, kBTransposed>(
      context, name, {result.rows, result.columns, depth, parts}, a, b, epilogue,
      {writes(MatrixView{epilogue.output, DType::kFloat32, parts * result.rows, result.columns, epilogue.stride})});
  sum_parts(context, name, epilogue.output, parts, result, factor, accumulate);
}

}  // namespace siglip2::cuda
