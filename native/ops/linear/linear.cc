#include "ops/linear/linear.h"

#include "tensor/shape_check.h"

namespace siglip2 {
namespace {

bool takes_weight(const OpTable& table, DType dtype) {
  return (table.weight_types >> static_cast<int>(dtype) & 1u) != 0;
}

void check_fused(const char* name, const char* argument, const OpTable& table, bool given) {
  if (given && !table.fuses_gelu)
    throw Error(kErrorUnsupported, std::string(name) + ": " + argument + " is not fused on the device " + table.name);
}

}  // namespace

void linear(const OpTable& table, OpContext& context, const LinearArgs& args) {
  const char* const name = "linear";
  const DType product = args.weight.dtype;
  const DType type =
      check_activation_type(name, "input", activations_beside(args.input.dtype, product, table.rounded_operands),
                            table.name, table.activation_types);
  const std::int64_t rows = args.input.rows;
  check_at_least(name, "rows of input", rows, 0);
  check_at_least(name, "weight.in_features", args.weight.in_features, 1);
  check_at_least(name, "weight.out_features", args.weight.out_features, 1);
  check_operand(name, "input", args.input, type, product, table.rounded_operands, rows, args.weight.in_features);
  check_operand(name, "output", args.output, type, product, table.rounded_operands, rows, args.weight.out_features);
  check_pointer(name, "weight", args.weight.data);
  if (product != type && !(type == DType::kFloat32 && takes_weight(table, product))) {
    throw_shape_error(
        name, std::string("weight must be packed in the input's type, ") + name_of(type) + ", got " + name_of(product));
  }
  if (args.residual.data != nullptr) {
    check_matrix(name, "residual", args.residual, type, rows, args.weight.out_features);
  }
  check_fused(name, "input_activation", table, args.input_activation != Activation::kNone);
  if (args.pre_activation.data != nullptr) {
    check_fused(name, "pre_activation", table, true);
    check_operand(name, "pre_activation", args.pre_activation, type, product, table.rounded_operands, rows,
                  args.weight.out_features);
    if (args.activation != Activation::kNone)
      throw_shape_error(name, "pre_activation leaves no place for an activation");
    if (rows > 0 && args.pre_activation.data == args.output.data)
      throw_shape_error(name, "output must not overlap pre_activation");
  }
  if (rows == 0) return;
  if (args.input.data == args.output.data) throw_shape_error(name, "output must not overlap input");
  table.linear(context, args);
}

void pack_weight(const OpTable& table, OpContext& context, const PackWeightArgs& args) {
  const char* const name = "pack_weight";
  check_activation_type(name, "the packed weight", args.dtype, table.name, table.activation_types | table.weight_types);
  if (args.dtype == DType::kInt8 && args.transpose)
    throw Error(kErrorUnsupported, std::string(name) + ": transposed weights cannot be packed in int8");
  check_at_least(name, "part_count", args.part_count, 1);
  check_pointer(name, "parts", args.parts);
  check_pointer(name, "packed", args.packed);
  const std::int64_t in_features = args.parts[0].columns;
  check_at_least(name, "columns of part 0", in_features, 1);
  // Sums of in_features products of two 8-bit integers, the greater up to 128 · 127, have 32 bits.
  constexpr std::int64_t kMostInt8Features = std::numeric_limits<std::int32_t>::max() / (128 * 127);
  if (args.dtype == DType::kInt8) check_range(name, "in_features in int8", in_features, 1, kMostInt8Features);
  for (int i = 0; i < args.part_count; ++i) {
    const ConstMatrixView& part = args.parts[i];
    const std::string part_name = "part " + std::to_string(i);
    if (part.dtype != DType::kFloat32 && part.dtype != DType::kFloat16 && part.dtype != DType::kBFloat16) {
      throw_shape_error(name,
                        part_name + " must be float32, float16 or bfloat16, got " + std::string(name_of(part.dtype)));
    }
    check_at_least(name, ("rows of " + part_name).c_str(), part.rows, 1);
    check_matrix(name, part_name.c_str(), part, part.dtype, part.rows, in_features);
  }
  table.pack_weight(context, args);
}

void linear_backward(const OpTable& table, OpContext& context, const LinearBackwardArgs& args) {
  const char* const name = "linear_backward";
  const DType product = args.product_type;
  const DType type =
      check_activation_type(name, "input", activations_beside(args.input.dtype, product, table.rounded_operands),
                            table.name, table.activation_types);
  const std::int64_t rows = args.input.rows;
  check_at_least(name, "rows of input", rows, 0);
  check_at_least(name, "columns of input", args.input.columns, 1);
  check_at_least(name, "columns of grad_output", args.grad_output.columns, 1);
  check_operand(name, "input", args.input, type, product, table.rounded_operands, rows, args.input.columns);
  check_operand(name, "grad_output", args.grad_output, type, product, table.rounded_operands, rows,
                args.grad_output.columns);
  check_pointer(name, "grad_weight", args.grad_weight);
  if (product != type && !(type == DType::kFloat32 && product == DType::kBFloat16 && takes_weight(table, product))) {
    throw_shape_error(name, std::string("product_type must be the input's type, ") + name_of(type) +
                                ", or bfloat16 beside float32 on CPUs, got " + name_of(product));
  }
  check_fused(name, "input_activation", table, args.input_activation != Activation::kNone);
  if (rows == 0) return;
  table.linear_backward(context, args);
}

}  // namespace siglip2
