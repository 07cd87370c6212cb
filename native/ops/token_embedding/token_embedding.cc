#include "ops/token_embedding/token_embedding.h"

#include "tensor/shape_check.h"

namespace siglip2 {

void token_embedding(const OpTable& table, OpContext& context, const TokenEmbeddingArgs& args) {
  const char* const name = "token_embedding";
  const DType type = check_activation_type(name, "output", args.output.dtype, table.name, table.activation_types);
  const std::int64_t rows = args.output.rows;
  check_at_least(name, "length", args.length, 1);
  check_at_least(name, "rows of output", rows, 0);
  check_at_least(name, "columns of table", args.table.columns, 1);
  if (rows % args.length != 0) {
    throw_shape_error(
        name, "output must have a multiple of " + std::to_string(args.length) + " rows, got " + std::to_string(rows));
  }
  if (args.table.dtype != DType::kFloat32 && args.table.dtype != DType::kFloat16 &&
      args.table.dtype != DType::kBFloat16) {
    throw_shape_error(name,
                      std::string("table must be float32, float16 or bfloat16, got ") + name_of(args.table.dtype));
  }
  check_matrix(name, "table", args.table, args.table.dtype, args.table.rows, args.table.columns);
  check_matrix(name, "output", args.output, type, rows, args.table.columns);
  if (rows == 0) return;
  check_pointer(name, "ids", args.ids);
  check_pointer(name, "positions", args.positions);
  for (std::int64_t i = 0; i < rows; ++i) {
    if (args.ids[i] >= 0 && args.ids[i] < args.table.rows) continue;
    throw_shape_error(name, "ids[" + std::to_string(i) + "] must be from 0 to " + std::to_string(args.table.rows - 1) +
                                ", got " + std::to_string(args.ids[i]));
  }
  table.token_embedding(context, args);
}

void token_embedding_backward(const OpTable& table, OpContext& context, const TokenEmbeddingBackwardArgs& args) {
  const char* const name = "token_embedding_backward";
  const DType type =
      check_activation_type(name, "grad_output", args.grad_output.dtype, table.name, table.activation_types);
  const std::int64_t rows = args.grad_output.rows;
  check_at_least(name, "length", args.length, 1);
  check_range(name, "rows of grad_output", rows, 0, std::numeric_limits<std::int32_t>::max());
  check_at_least(name, "columns of grad_output", args.grad_output.columns, 1);
  if (rows % args.length != 0) {
    throw_shape_error(name, "grad_output must have a multiple of " + std::to_string(args.length) + " rows, got " +
                                std::to_string(rows));
  }
  check_matrix(name, "grad_output", args.grad_output, type, rows, args.grad_output.columns);
  if (rows == 0) return;
  if (args.grad_table != nullptr) {
    check_pointer(name, "slots", args.slots);
    for (std::int64_t i = 0; i < rows; ++i) {
      if (args.slots[i] >= 0 && args.slots[i] < args.slot_count) continue;
      throw_shape_error(name, "slots[" + std::to_string(i) + "] must be from 0 to " +
                                  std::to_string(args.slot_count - 1) + ", got " + std::to_string(args.slots[i]));
    }
  }
  table.token_embedding_backward(context, args);
}

}  // namespace siglip2
