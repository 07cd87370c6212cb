#include "ops/map_pool/map_pool.h"

#include "tensor/shape_check.h"

namespace siglip2 {
namespace {

void check_heads(const char* name, const char* what, std::int64_t width, int heads) {
  check_at_least(name, "heads", heads, 1);
  check_at_least(name, what, width, 1);
  if (width % heads != 0) {
    throw_shape_error(name, std::string(what) + " must be a multiple of " + std::to_string(heads) + " heads, got " +
                                std::to_string(width));
  }
}

// What the arguments of both passes have in common. Returns the type of activations.
template <typename Args>
DType check_inputs(const char* name, const OpTable& table, const Args& args) {
  const DType type = check_activation_type(name, "tokens", args.tokens.dtype, table.name, table.activation_types);
  check_at_least(name, "sequences", args.sequences, 0);
  check_heads(name, "columns of tokens", args.tokens.columns, args.heads);
  check_at_least(name, "rows of tokens", args.tokens.rows, 0);
  check_matrix(name, "tokens", args.tokens, type, args.tokens.rows, args.tokens.columns);
  check_pointer(name, "probe_keys", args.probe_keys);
  check_pointer(name, "value_weight", args.value_weight);
  return type;
}

void check_probe(const char* name, const ProbeKeysArgs& args) {
  check_heads(name, "width", args.width, args.heads);
  check_pointer(name, "probe", args.probe);
  check_pointer(name, "query_weight", args.query_weight);
  check_pointer(name, "query_bias", args.query_bias);
  check_pointer(name, "key_weight", args.key_weight);
}

}  // namespace

void map_pool(const OpTable& table, OpContext& context, const MapPoolArgs& args) {
  const char* const name = "map_pool";
  const DType type = check_inputs(name, table, args);
  check_bounded_offsets(name, "offsets", args.offsets, args.sequences, args.tokens.rows, args.length_bound);
  check_matrix(name, "output", args.output, type, args.sequences, args.tokens.columns);
  check_pointer(name, "value_bias", args.value_bias);
  if (args.sequences == 0) return;
  table.map_pool(context, args);
}

void map_pool_backward(const OpTable& table, OpContext& context, const MapPoolBackwardArgs& args) {
  const char* const name = "map_pool_backward";
  const DType type = check_inputs(name, table, args);
  const std::int64_t width = args.tokens.columns;
  check_offsets(name, "offsets", args.offsets, args.sequences, args.tokens.rows);
  check_matrix(name, "grad_output", args.grad_output, type, args.sequences, width);
  if (args.grad_tokens.data != nullptr) {
    check_matrix(name, "grad_tokens", args.grad_tokens, type, args.tokens.rows, width);
    if (args.grad_tokens.data == args.tokens.data) throw_shape_error(name, "grad_tokens must not overlap tokens");
  }
  if (args.grad_probe_keys != nullptr || args.grad_value_weight != nullptr || args.grad_value_bias != nullptr) {
    check_pointer(name, "grad_probe_keys", args.grad_probe_keys);
    check_pointer(name, "grad_value_weight", args.grad_value_weight);
    check_pointer(name, "grad_value_bias", args.grad_value_bias);
  }
  check_matrix(name, "pooled", args.pooled, DType::kFloat32, args.sequences, args.heads * width);
  check_matrix(name, "grad_pooled", args.grad_pooled, DType::kFloat32, args.sequences, args.heads * width);
  if (args.sequences == 0) return;
  table.map_pool_backward(context, args);
}

void probe_keys(const OpTable& table, OpContext& context, const ProbeKeysArgs& args) {
  const char* const name = "probe_keys";
  check_probe(name, args);
  check_pointer(name, "probe_keys", args.probe_keys);
  table.probe_keys(context, args);
}

void probe_keys_backward(const OpTable& table, OpContext& context, const ProbeKeysBackwardArgs& args) {
  const char* const name = "probe_keys_backward";
  check_probe(name, args.forward);
  check_pointer(name, "grad_probe_keys", args.grad_probe_keys);
  table.probe_keys_backward(context, args);
}

}  // namespace siglip2
