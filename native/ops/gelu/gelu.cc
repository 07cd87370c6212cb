#include "ops/gelu/gelu.h"

#include "tensor/shape_check.h"

namespace siglip2 {

void gelu(const OpTable& table, OpContext& context, const GeluArgs& args) {
  const char* const name = "gelu";
  check_at_least(name, "rows of input", args.input.rows, 0);
  check_at_least(name, "columns of input", args.input.columns, 0);
  check_matrix(name, "input", args.input, DType::kFloat32, args.input.rows, args.input.columns);
  check_matrix(name, "output", args.output, DType::kFloat32, args.input.rows, args.input.columns);
  if (args.input.rows == 0 || args.input.columns == 0) return;
  table.gelu(context, args);
}

void gelu_backward(const OpTable& table, OpContext& context, const GeluBackwardArgs& args) {
  const char* const name = "gelu_backward";
  const std::int64_t rows = args.input.rows, columns = args.input.columns;
  check_at_least(name, "rows of input", rows, 0);
  check_at_least(name, "columns of input", columns, 0);
  check_matrix(name, "input", args.input, DType::kFloat32, rows, columns);
  check_matrix(name, "grad_output", args.grad_output, DType::kFloat32, rows, columns);
  check_matrix(name, "grad_input", args.grad_input, DType::kFloat32, rows, columns);
  if (rows == 0 || columns == 0) return;
  table.gelu_backward(context, args);
}

}  // namespace siglip2
