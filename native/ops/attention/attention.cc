#include "ops/attention/attention.h"

#include "tensor/shape_check.h"

namespace siglip2 {

void attention(const OpTable& table, OpContext& context, const AttentionArgs& args) {
  const char* const name = "attention";
  check_at_least(name, "heads", args.heads, 1);
  check_range(name, "head_dim", args.head_dim, 1, kMaxHeadDim);
  check_at_least(name, "sequences", args.sequences, 0);
  const std::int64_t width = static_cast<std::int64_t>(args.heads) * args.head_dim;
  const std::int64_t queries = args.query.rows;
  const std::int64_t keys = args.key.rows;
  check_at_least(name, "rows of query", queries, 0);
  check_at_least(name, "rows of key", keys, 0);
  check_matrix(name, "query", args.query, DType::kFloat32, queries, width);
  check_matrix(name, "key", args.key, DType::kFloat32, keys, width);
  check_matrix(name, "value", args.value, DType::kFloat32, keys, width);
  check_matrix(name, "output", args.output, DType::kFloat32, queries, width);
  if (args.log_sum_exp.data != nullptr) {
    check_matrix(name, "log_sum_exp", args.log_sum_exp, DType::kFloat32, queries, args.heads);
  }
  check_offsets(name, "query_offsets", args.query_offsets, args.sequences, queries);
  check_offsets(name, "key_offsets", args.key_offsets, args.sequences, keys);
  if (queries == 0) return;
  if (args.output.data == args.query.data || args.output.data == args.key.data || args.output.data == args.value.data) {
    throw_shape_error(name, "output must not overlap query, key or value");
  }
  table.attention(context, args);
}

}  // namespace siglip2
