#include "ops/map_pool/map_pool.h"

#include <cmath>
#include <vector>

#include "tensor/shape_check.h"

namespace siglip2 {

void map_pool(const OpTable& table, OpContext& context, const MapPoolArgs& args) {
  const char* const name = "map_pool";
  const std::int64_t width = args.tokens.columns;
  check_at_least(name, "sequences", args.sequences, 0);
  check_at_least(name, "heads", args.heads, 1);
  check_at_least(name, "columns of tokens", width, 1);
  check_at_least(name, "rows of tokens", args.tokens.rows, 0);
  if (width % args.heads != 0) {
    throw_shape_error(name, "columns of tokens must be a multiple of " + std::to_string(args.heads) + " heads, got " +
                                std::to_string(width));
  }
  check_matrix(name, "tokens", args.tokens, DType::kFloat32, args.tokens.rows, width);
  check_matrix(name, "output", args.output, DType::kFloat32, args.sequences, width);
  check_offsets(name, "offsets", args.offsets, args.sequences, args.tokens.rows);
  check_pointer(name, "probe_keys", args.probe_keys);
  check_pointer(name, "value_weight", args.value_weight);
  check_pointer(name, "value_bias", args.value_bias);
  if (args.sequences == 0) return;
  table.map_pool(context, args);
}

void derive_probe_keys(const float* probe, const float* query_weight, const float* query_bias, const float* key_weight,
                       std::int64_t width, int heads, float* probe_keys) {
  const std::int64_t head_dim = width / heads;
  const double scale = 1.0 / std::sqrt(static_cast<double>(head_dim));
  std::vector<double> sums(static_cast<std::size_t>(width));
  for (std::int64_t head = 0; head < heads; ++head) {
    for (double& sum : sums)
      sum = 0;
    for (std::int64_t row = head * head_dim; row < (head + 1) * head_dim; ++row) {
      double query = query_bias[row];
      for (std::int64_t i = 0; i < width; ++i)
        query += static_cast<double>(query_weight[row * width + i]) * probe[i];
      for (std::int64_t i = 0; i < width; ++i) {
        sums[static_cast<std::size_t>(i)] += scale * query * key_weight[row * width + i];
      }
    }
    for (std::int64_t i = 0; i < width; ++i) {
      probe_keys[head * width + i] = static_cast<float>(sums[static_cast<std::size_t>(i)]);
    }
  }
}

}  // namespace siglip2
