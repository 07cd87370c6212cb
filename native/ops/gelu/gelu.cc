#include "ops/gelu/gelu.h"

#include "tensor/shape_check.h"

namespace siglip2 {

void gelu(const OpTable& table, OpContext& context, const GeluArgs& args) {
  const char* const name = "gelu";
  const DType type = check_activation_type(name, "input", args.input.dtype, table.name, table.activation_types);
  check_at_least(name, "rows of input", args.input.rows, 0);
  check_at_least(name, "columns of input", args.input.columns, 0);
  check_matrix(name, "input", args.input, type, args.input.rows, args.input.columns);
  check_matrix(name, "output", args.output, type, args.input.rows, args.input.columns);
  if (args.input.rows == 0 || args.input.columns == 0) return;
  table.gelu(context, args);
}

void gelu_backward(const OpTable& table, OpContext& context, const GeluBackwardArgs& args) {
  const char* const name = "gelu_backward";
  const DType type = check_activation_type(name, "input", args.input.dtype, table.name, table.activation_types);
  const std::int64_t rows = args.input.rows, columns = args.input.columns;
  check_at_least(name, "rows of input", rows, 0);
  check_at_least(name, "columns of input", columns, 0);
  check_matrix(name, "input", args.input, type, rows, columns);
  check_matrix(name, "grad_output", args.grad_output, type, rows, columns);
  check_matrix(name, "grad_input", args.grad_input, type, rows, columns);
  if (rows == 0 || columns == 0) return;
  table.gelu_backward(context, args);
}

}  // namespace siglip2
