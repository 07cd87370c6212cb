// Products of matrices by kernels of our own: result[i, j] = epilogue(Σ_k a[i, k] · b[j, k]), for activations and
// weights alike. Every operation with a product in it is built of these; cuda/cublaslt.h, where there is one, is faster
// at the plain ones.
//
// Operands (cuda/matrix_operand.cuh) are bfloat16 or float32, with depth along their rows or as their rows; sizes and
// strides are any. Sums are float32, in an order that the depth alone decides: a row gives the same bits in every
// batch. Epilogues are those of cuda/matrix_epilogue.cuh.
//
// Floor: rows · columns · depth multiply-adds on tensor cores (bfloat16) or the ordinary units (float32), or one read
// of both operands and one write of the result, whichever takes longer. The plans are in cuda/matrix_product_tensor.cuh
// and cuda/matrix_product_float.cuh.
#pragma once

#include <array>
#include <type_traits>

#include "cuda/matrix_product_float.cuh"
#include "cuda/matrix_product_tensor.cuh"

namespace siglip2::cuda {

struct ProductSize {
  std::int64_t rows;
  std::int64_t columns;
  std::int64_t depth;
  // Into how many parts the depth is cut, each with sums of its own: what an epilogue makes of them is its affair.
  std::int64_t parts = 1;
};

constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

// Depth of all parts but the last.
inline std::int64_t depth_of_part(const ProductSize& size) {
  return divide_up(divide_up(size.depth, size.parts), 32) * 32;
}

// Large tiles need fewer bytes for a multiply-add, but enough of them to keep a chip busy. The size alone decides, not
// the chip; and not the result's bits.
inline bool takes_large_tiles(const ProductSize& size) {
  constexpr std::int64_t kEnough = 96;
  return divide_up(size.rows, 128) * divide_up(size.columns, 128) * size.parts >= kEnough;
}

namespace detail {

template <typename Shape>
ProductGrid grid_of(const ProductSize& size) {
  return {size.depth, depth_of_part(size), divide_up(size.rows, Shape::kRows),
          divide_up(size.columns, Shape::kColumns)};
}

template <typename Shape>
LaunchShape launch_shape(const ProductSize& size) {
  const ProductGrid grid = grid_of<Shape>(size);
  return {grid.tile_rows * grid.tile_columns, Shape::kThreads, Shape::kSharedBytes, size.parts};
}

template <typename Shape, bool kATransposed, bool kBTransposed, typename Epilogue>
void launch_tensor(OpContext& context, const char* name, const ProductSize& size, const Operand<bfloat16>& a,
                   const Operand<bfloat16>& b, const Epilogue& epilogue, const std::array<Access, 4>& touched) {
  const bool aligned = a.copy_bytes == 16 && b.copy_bytes == 16;
  launch(context, name,
         aligned ? tensor_product_kernel<Shape, kATransposed, kBTransposed, true, Epilogue>
                 : tensor_product_kernel<Shape, kATransposed, kBTransposed, false, Epilogue>,
         launch_shape<Shape>(size), {reads(a), reads(b), touched[0], touched[1], touched[2], touched[3]},
         grid_of<Shape>(size), a, b, epilogue);
}

template <typename Shape, bool kATransposed, bool kBTransposed, template <int, int> typename Sums, typename Epilogue>
void launch_float(OpContext& context, const char* name, const ProductSize& size, const Operand<float>& a,
                  const Operand<float>& b, int stretch, const Epilogue& epilogue,
                  const std::array<Access, 4>& touched) {
  launch(context, name, float_product_kernel<Shape, kATransposed, kBTransposed, Sums, Epilogue>,
         launch_shape<Shape>(size), {reads(a), reads(b), touched[0], touched[1], touched[2], touched[3]},
         grid_of<Shape>(size), a, b, stretch, epilogue);
}

}  // namespace detail

// Tiles of a result, as epilogues number them.
inline std::int64_t tile_count(const ProductSize& size) {
  const std::int64_t side = takes_large_tiles(size) ? 128 : 64;
  return divide_up(size.rows, side) * divide_up(size.columns, side);
}
inline std::int64_t pair_tile_count(const ProductSize& size) {
  return divide_up(size.rows, 64) * divide_up(size.columns, 64);
}

// `touched`: what the epilogue reads and writes. A result without rows or columns is nothing.
template <bool kATransposed, bool kBTransposed, typename T, typename Epilogue>
void multiply_matrices(OpContext& context, const char* name, const ProductSize& size, const Operand<T>& a,
                       const Operand<T>& b, const Epilogue& epilogue, const std::array<Access, 4>& touched) {
  const auto start = [&](auto shape) {
    using Shape = decltype(shape);
    if constexpr (std::is_same_v<T, bfloat16>) {
      detail::launch_tensor<Shape, kATransposed, kBTransposed>(context, name, size, a, b, epilogue, touched);
    } else {
      detail::launch_float<Shape, kATransposed, kBTransposed, FloatSums>(context, name, size, a, b, kFloatStretch,
                                                                         epilogue, touched);
    }
  };
  constexpr bool kTensor = std::is_same_v<T, bfloat16>;
  if (takes_large_tiles(size)) {
    start(std::conditional_t<kTensor, LargeTensorShape, LargeFloatShape>{});
  } else {
    start(std::conditional_t<kTensor, SmallTensorShape, SmallFloatShape>{});
  }
}

// The same with sums as good as double precision beyond stretches of `stretch` terms, a power of two from 1 to 64: the
// epilogue gets doubles.
template <bool kATransposed, bool kBTransposed, typename Epilogue>
void multiply_pairs(OpContext& context, const char* name, const ProductSize& size, const Operand<float>& a,
                    const Operand<float>& b, int stretch, const Epilogue& epilogue,
                    const std::array<Access, 4>& touched) {
  detail::launch_float<SmallFloatShape, kATransposed, kBTransposed, PairSums>(context, name, size, a, b, stretch,
                                                                              epilogue, touched);
}

}  // namespace siglip2::cuda
