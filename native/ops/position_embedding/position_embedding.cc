#include "ops/position_embedding/position_embedding.h"

#include <limits>

#include "tensor/shape_check.h"

namespace siglip2 {
namespace {

// Checks what forward and backward have in common and returns the tokens of all images.
std::int64_t check_grids(const char* name, std::int64_t table_rows, std::int64_t table_columns,
                         const std::int32_t* spatial_shapes, std::int64_t images) {
  check_at_least(name, "table_rows", table_rows, 1);
  check_at_least(name, "table_columns", table_columns, 1);
  check_at_least(name, "images", images, 0);
  if (images > 0) check_pointer(name, "spatial_shapes", spatial_shapes);
  std::int64_t tokens = 0;
  for (std::int64_t image = 0; image < images; ++image) {
    const std::int64_t rows = spatial_shapes[2 * image];
    const std::int64_t columns = spatial_shapes[2 * image + 1];
    check_at_least(name, "every entry of spatial_shapes", rows < columns ? rows : columns, 1);
    tokens += rows * columns;
    if (tokens > std::numeric_limits<std::int32_t>::max())
      throw_shape_error(name, "spatial_shapes may have at most 2147483647 tokens in all");
  }
  return tokens;
}

}  // namespace

void position_embedding(const OpTable& table, OpContext& context, const PositionEmbeddingArgs& args) {
  const char* const name = "position_embedding";
  const DType type = check_activation_type(name, "tokens", args.tokens.dtype, table.name, table.activation_types);
  const std::int64_t tokens = check_grids(name, args.table_rows, args.table_columns, args.spatial_shapes, args.images);
  check_at_least(name, "columns of tokens", args.tokens.columns, 1);
  check_matrix(name, "tokens", args.tokens, type, tokens, args.tokens.columns);
  if (tokens == 0) return;
  check_pointer(name, "table", args.table);
  table.position_embedding(context, args);
}

void position_embedding_backward(const OpTable& table, OpContext& context, const PositionEmbeddingBackwardArgs& args) {
  const char* const name = "position_embedding_backward";
  const DType type =
      check_activation_type(name, "grad_tokens", args.grad_tokens.dtype, table.name, table.activation_types);
  const std::int64_t tokens = check_grids(name, args.table_rows, args.table_columns, args.spatial_shapes, args.images);
  check_at_least(name, "columns of grad_tokens", args.grad_tokens.columns, 1);
  check_matrix(name, "grad_tokens", args.grad_tokens, type, tokens, args.grad_tokens.columns);
  if (tokens == 0) return;
  check_pointer(name, "grad_table", args.grad_table);
  table.position_embedding_backward(context, args);
}

}  // namespace siglip2
