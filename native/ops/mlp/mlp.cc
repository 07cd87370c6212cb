#include "ops/mlp/mlp.h"

#include "cpu/thread_pool.h"
#include "tensor/shape_check.h"

namespace siglip2 {

bool fuses_mlp(const OpTable& table, std::int64_t rows) {
  constexpr std::int64_t kLeastRowsOfCore = 64;
  // The same answer for the plan of a pass and for the pass, whatever happens to the process's cores between them.
  static const std::int64_t least_rows = kLeastRowsOfCore * cpu::available_cores();
  return table.mlp != nullptr && rows >= least_rows;
}

void check_mlp(const OpTable& table, const MlpArgs& args) {
  const char* const name = "mlp";
  const DType type = check_activation_type(name, "input", args.input.dtype, table.name, table.activation_types);
  const std::int64_t rows = args.input.rows, width = args.fc1.in_features;
  check_at_least(name, "rows of input", rows, 0);
  check_at_least(name, "fc1.in_features", width, 1);
  check_at_least(name, "fc1.out_features", args.fc1.out_features, 1);
  check_equal(name, "fc2.in_features", args.fc2.in_features, args.fc1.out_features);
  check_equal(name, "fc2.out_features", args.fc2.out_features, width);
  if (args.fc1.dtype != args.fc2.dtype)
    throw_shape_error(name, std::string("fc2 must be packed in the type of fc1, ") + name_of(args.fc1.dtype) +
                                ", got " + name_of(args.fc2.dtype));
  check_matrix(name, "input", args.input, type, rows, width);
  check_matrix(name, "output", args.output, type, rows, width);
  if (args.residual.data != nullptr) check_matrix(name, "residual", args.residual, type, rows, width);
  check_pointer(name, "fc1", args.fc1.data);
  check_pointer(name, "fc2", args.fc2.data);
  if (args.norm.weight != nullptr) check_pointer(name, "norm.bias", args.norm.bias);
}

void mlp(const OpTable& table, OpContext& context, const MlpArgs& args) {
  check_mlp(table, args);
  if (args.input.rows > 0) table.mlp(context, args);
}

}  // namespace siglip2
