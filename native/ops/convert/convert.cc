#include "ops/convert/convert.h"

#include "tensor/shape_check.h"

namespace siglip2 {
namespace {

void check_type(const char* argument, DType dtype) {
  if (dtype == DType::kFloat32 || dtype == DType::kBFloat16) return;
  throw_shape_error("convert", std::string(argument) + " must be float32 or bfloat16, got " + name_of(dtype));
}

}  // namespace

void convert(const OpTable& table, OpContext& context, const ConvertArgs& args) {
  const char* const name = "convert";
  const std::int64_t rows = args.input.rows, columns = args.input.columns;
  check_at_least(name, "rows of input", rows, 0);
  check_at_least(name, "columns of input", columns, 0);
  check_type("input", args.input.dtype);
  check_type("output", args.output.dtype);
  check_matrix(name, "input", args.input, args.input.dtype, rows, columns);
  check_matrix(name, "output", args.output, args.output.dtype, rows, columns);
  if (rows == 0 || columns == 0) return;
  if (args.input.data == args.output.data) throw_shape_error(name, "output must not overlap input");
  table.convert(context, args);
}

}  // namespace siglip2
