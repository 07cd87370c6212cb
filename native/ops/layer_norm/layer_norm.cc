#include "ops/layer_norm/layer_norm.h"

#include "tensor/shape_check.h"

namespace siglip2 {

void layer_norm(const OpTable& table, OpContext& context, const LayerNormArgs& args) {
  const char* const name = "layer_norm";
  check_at_least(name, "rows of input", args.input.rows, 0);
  check_at_least(name, "columns of input", args.input.columns, 1);
  check_matrix(name, "input", args.input, DType::kFloat32, args.input.rows, args.input.columns);
  check_matrix(name, "output", args.output, DType::kFloat32, args.input.rows, args.input.columns);
  check_pointer(name, "weight", args.weight);
  check_pointer(name, "bias", args.bias);
  if (args.input.rows == 0) return;
  table.layer_norm(context, args);
}

}  // namespace siglip2
