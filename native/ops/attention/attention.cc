#include "ops/attention/attention.h"

#include <cmath>

#include "tensor/shape_check.h"

namespace siglip2 {
namespace {

// Returns the type of activations.
DType check_inputs(const char* name, const OpTable& table, const AttentionInputs& args, DType product_type,
                   const ConstMatrixView& output) {
  const DType operands = args.query.dtype;
  const DType type =
      check_activation_type(name, "query", activations_beside(operands, product_type, table.rounded_operands),
                            table.name, table.activation_types);
  check_at_least(name, "heads", args.heads, 1);
  check_range(name, "head_dim", args.head_dim, 1, kMaxHeadDim);
  check_at_least(name, "sequences", args.sequences, 0);
  const std::int64_t width = static_cast<std::int64_t>(args.heads) * args.head_dim;
  const std::int64_t queries = args.query.rows;
  const std::int64_t keys = args.key.rows;
  check_at_least(name, "rows of query", queries, 0);
  check_at_least(name, "rows of key", keys, 0);
  check_matrix(name, "query", args.query, operands, queries, width);
  check_matrix(name, "key", args.key, operands, keys, width);
  check_matrix(name, "value", args.value, operands, keys, width);
  check_operand(name, "output", output, type, product_type, table.rounded_operands, queries, width);
  check_bounded_offsets(name, "query_offsets", args.query_offsets, args.sequences, queries, args.length_bound);
  check_bounded_offsets(name, "key_offsets", args.key_offsets, args.sequences, keys, args.length_bound);
  return type;
}

// The type of products is that of activations, or bfloat16 beside float32 where the device has weights in it.
void check_product_type(const char* name, const OpTable& table, DType activations, DType products) {
  if (products == DType::kFloat32) return;
  const std::uint32_t bfloat16 = 1u << static_cast<int>(DType::kBFloat16);
  const std::uint32_t narrower = activations == DType::kFloat32 ? table.weight_types & bfloat16 : 0;
  check_activation_type(name, "the type of products", products, table.name,
                        1u << static_cast<int>(DType::kFloat32) | narrower);
}

}  // namespace

float attention_scale(int head_dim) {
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim)));
}

AttentionInputs joint_attention(const ConstMatrixView& joint, int heads, const std::int32_t* offsets,
                                std::int64_t sequences) {
  const std::int64_t width = joint.columns / 3;
  AttentionInputs inputs;
  inputs.query = joint.slice_columns(0, width);
  inputs.key = joint.slice_columns(width, width);
  inputs.value = joint.slice_columns(2 * width, width);
  inputs.query_offsets = inputs.key_offsets = offsets;
  inputs.sequences = sequences;
  inputs.heads = heads;
  inputs.head_dim = static_cast<int>(width / heads);
  inputs.scale = attention_scale(inputs.head_dim);
  return inputs;
}

void attention(const OpTable& table, OpContext& context, const AttentionArgs& args) {
  const char* const name = "attention";
  const DType type = check_inputs(name, table, args, args.product_type, args.output);
  check_product_type(name, table, type, args.product_type);
  const std::int64_t queries = args.query.rows;
  if (args.log_sum_exp.data != nullptr) {
    check_matrix(name, "log_sum_exp", args.log_sum_exp, DType::kFloat32, queries, args.heads);
  }
  if (queries == 0) return;
  if (args.output.data == args.query.data || args.output.data == args.key.data || args.output.data == args.value.data) {
    throw_shape_error(name, "output must not overlap query, key or value");
  }
  table.attention(context, args);
}

void attention_backward(const OpTable& table, OpContext& context, const AttentionBackwardArgs& args) {
  const char* const name = "attention_backward";
  check_equal(name, "length_bound", args.length_bound, 0);
  const DType type = check_inputs(name, table, args, args.product_type, args.output);
  check_product_type(name, table, type, args.product_type);
  const std::int64_t width = args.query.columns;
  const std::int64_t queries = args.query.rows;
  const std::int64_t keys = args.key.rows;
  check_matrix(name, "log_sum_exp", args.log_sum_exp, DType::kFloat32, queries, args.heads);
  check_operand(name, "grad_output", args.grad_output, type, args.product_type, table.rounded_operands, queries, width);
  check_matrix(name, "grad_query", args.grad_query, args.query.dtype, queries, width);
  check_matrix(name, "grad_key", args.grad_key, args.query.dtype, keys, width);
  check_matrix(name, "grad_value", args.grad_value, args.query.dtype, keys, width);
  for (const MatrixView& gradient : {args.grad_query, args.grad_key, args.grad_value}) {
    for (const ConstMatrixView& input : {args.query, args.key, args.value, args.output, args.grad_output}) {
      if (gradient.data != nullptr && gradient.data == input.data) {
        throw_shape_error(name, "gradients must not overlap query, key, value, output or grad_output");
      }
    }
  }
  table.attention_backward(context, args);
}

}  // namespace siglip2
