#include "ops/l2_normalize/l2_normalize.h"

#include "tensor/shape_check.h"

namespace siglip2 {
namespace {

// Each matrix has a type of its own.
void check_rows(const char* name, const char* argument, const ConstMatrixView& matrix, const OpTable& table,
                std::int64_t rows, std::int64_t width) {
  check_matrix(name, argument, matrix,
               check_activation_type(name, argument, matrix.dtype, table.name, table.activation_types), rows, width);
}

}  // namespace

void l2_normalize(const OpTable& table, OpContext& context, const L2NormalizeArgs& args) {
  const char* const name = "l2_normalize";
  check_at_least(name, "rows of input", args.input.rows, 0);
  check_at_least(name, "columns of input", args.input.columns, 0);
  check_rows(name, "input", args.input, table, args.input.rows, args.input.columns);
  check_rows(name, "output", args.output, table, args.input.rows, args.input.columns);
  if (args.input.rows == 0 || args.input.columns == 0) return;
  table.l2_normalize(context, args);
}

void l2_normalize_backward(const OpTable& table, OpContext& context, const L2NormalizeBackwardArgs& args) {
  const char* const name = "l2_normalize_backward";
  const std::int64_t rows = args.input.rows, width = args.input.columns;
  check_at_least(name, "rows of input", rows, 0);
  check_at_least(name, "columns of input", width, 0);
  check_rows(name, "input", args.input, table, rows, width);
  check_rows(name, "grad_output", args.grad_output, table, rows, width);
  check_rows(name, "grad_input", args.grad_input, table, rows, width);
  if (rows == 0 || width == 0) return;
  if (args.grad_input.data == args.input.data) throw_shape_error(name, "grad_input must not overlap input");
  table.l2_normalize_backward(context, args);
}

}  // namespace siglip2
