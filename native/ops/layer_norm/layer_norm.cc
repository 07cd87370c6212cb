#include "ops/layer_norm/layer_norm.h"

#include "tensor/shape_check.h"

namespace siglip2 {

void layer_norm(const OpTable& table, OpContext& context, const LayerNormArgs& args) {
  const char* const name = "layer_norm";
  const DType type = check_activation_type(name, "input", args.input.dtype, table.name, table.activation_types);
  check_at_least(name, "rows of input", args.input.rows, 0);
  check_at_least(name, "columns of input", args.input.columns, 1);
  check_matrix(name, "input", args.input, type, args.input.rows, args.input.columns);
  // What products in bfloat16 round is written so for them.
  check_operand(name, "output", args.output, type, DType::kBFloat16, table.rounded_operands, args.input.rows,
                args.input.columns);
  check_pointer(name, "weight", args.weight);
  check_pointer(name, "bias", args.bias);
  if (args.input.rows == 0) return;
  table.layer_norm(context, args);
}

void layer_norm_backward(const OpTable& table, OpContext& context, const LayerNormBackwardArgs& args) {
  const char* const name = "layer_norm_backward";
  const DType type = check_activation_type(name, "input", args.input.dtype, table.name, table.activation_types);
  const std::int64_t rows = args.input.rows, width = args.input.columns;
  check_at_least(name, "rows of input", rows, 0);
  check_at_least(name, "columns of input", width, 1);
  check_matrix(name, "input", args.input, type, rows, width);
  check_matrix(name, "grad_output", args.grad_output, type, rows, width);
  check_matrix(name, "grad_input", args.grad_input, type, rows, width);
  check_matrix(name, "statistics", args.statistics, DType::kFloat32, rows, 2);
  check_pointer(name, "weight", args.weight);
  if ((args.grad_weight == nullptr) != (args.grad_bias == nullptr)) {
    throw_shape_error(name, "grad_weight and grad_bias must be given both or not at all");
  }
  if (rows == 0) return;
  if (args.grad_input.data == args.input.data || args.grad_input.data == args.grad_output.data) {
    throw_shape_error(name, "grad_input must not overlap input or grad_output");
  }
  table.layer_norm_backward(context, args);
}

}  // namespace siglip2
