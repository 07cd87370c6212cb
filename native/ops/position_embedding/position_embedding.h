// Adds a learned position table, resized to each image's grid, to the image's patch tokens.
//
//   table           [table_rows, table_columns, width]  float32
//   spatial_shapes  [images, 2] (rows, columns of patches) in host memory
//   tokens          [Σ rows·columns, width]  float32, or bfloat16 where the device computes in it; row-major grids one
//                   after the other; accumulated into
//
// Separable triangle filter with antialiasing and half-pixel centres (align_corners = false): along an axis of n table
// entries and m outputs, s = n/m, support max(s, 1), centre (i + ½)s, taps from max(0, ⌊centre − support + ½⌋) to
// min(n, ⌊centre + support + ½⌋), weight max(0, 1 − |j + ½ − centre|/support), normalised to sum 1. This is
// torch's interpolate(bilinear, antialias=True) and jax.image.scale_and_translate(triangle, antialias=True). Filter
// weights are computed in double precision, sums in float32. An axis whose size does not change is copied exactly.
#pragma once

#include <cstdint>

#include "backend/op_table.h"
#include "tensor/matrix_view.h"

namespace siglip2 {

struct PositionEmbeddingArgs {
  const float* table = nullptr;
  std::int64_t table_rows = 0;
  std::int64_t table_columns = 0;
  const std::int32_t* spatial_shapes = nullptr;
  std::int64_t images = 0;
  MatrixView tokens;
};

// Gradient of the table: the transposed resize of every image's token gradients, summed over images.
//
//   grad_tokens  [Σ rows·columns, width]             float32 or bfloat16
//   grad_table   [table_rows, table_columns, width]  float32, dense, accumulated into
//
// Filter weights as above; sums run over images and tokens in order, so results do not depend on the number of threads.
struct PositionEmbeddingBackwardArgs {
  std::int64_t table_rows = 0;
  std::int64_t table_columns = 0;
  const std::int32_t* spatial_shapes = nullptr;
  std::int64_t images = 0;
  ConstMatrixView grad_tokens;
  float* grad_table = nullptr;
};

void position_embedding(const OpTable& table, OpContext& context, const PositionEmbeddingArgs& args);
void position_embedding_backward(const OpTable& table, OpContext& context, const PositionEmbeddingBackwardArgs& args);

void position_embedding_reference(OpContext& context, const PositionEmbeddingArgs& args);
void position_embedding_backward_reference(OpContext& context, const PositionEmbeddingBackwardArgs& args);

}  // namespace siglip2
