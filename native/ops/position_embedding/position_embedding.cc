#include "ops/position_embedding/position_embedding.h"

#include "tensor/shape_check.h"

namespace siglip2 {

void position_embedding(const OpTable& table, OpContext& context, const PositionEmbeddingArgs& args) {
  const char* const name = "position_embedding";
  check_at_least(name, "table_rows", args.table_rows, 1);
  check_at_least(name, "table_columns", args.table_columns, 1);
  check_at_least(name, "images", args.images, 0);
  check_at_least(name, "columns of tokens", args.tokens.columns, 1);
  if (args.images > 0) {
    check_pointer(name, "table", args.table);
    check_pointer(name, "spatial_shapes", args.spatial_shapes);
  }
  std::int64_t tokens = 0;
  for (std::int64_t image = 0; image < args.images; ++image) {
    const std::int64_t rows = args.spatial_shapes[2 * image];
    const std::int64_t columns = args.spatial_shapes[2 * image + 1];
    check_at_least(name, "every entry of spatial_shapes", rows < columns ? rows : columns, 1);
    tokens += rows * columns;
  }
  check_matrix(name, "tokens", args.tokens, DType::kFloat32, tokens, args.tokens.columns);
  if (tokens == 0) return;
  table.position_embedding(context, args);
}

}  // namespace siglip2
