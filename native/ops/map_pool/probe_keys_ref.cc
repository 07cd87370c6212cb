// The oracle of the probe's keys and their gradients: the formulas of map_pool.h, row by row, in double precision.
#include <cmath>
#include <vector>

#include "ops/map_pool/map_pool.h"

namespace siglip2 {
namespace {

double scale_of(const ProbeKeysArgs& args) {
  return 1.0 / std::sqrt(static_cast<double>(args.width / args.heads));
}

// Row `row` of W_q probe + b_q.
double query_of(const ProbeKeysArgs& args, std::int64_t row) {
  double query = args.query_bias[row];
  for (std::int64_t i = 0; i < args.width; ++i)
    query += static_cast<double>(args.query_weight[row * args.width + i]) * args.probe[i];
  return query;
}

}  // namespace

void probe_keys_reference(OpContext& context, const ProbeKeysArgs& args) {
  const std::int64_t head_dim = args.width / args.heads;
  const double scale = scale_of(args);
  for (std::int64_t head = 0; head < args.heads; ++head) {
    std::vector<double> sums(static_cast<std::size_t>(args.width));
    for (std::int64_t row = head * head_dim; row < (head + 1) * head_dim; ++row) {
      const double query = query_of(args, row);
      for (std::int64_t i = 0; i < args.width; ++i)
        sums[static_cast<std::size_t>(i)] += scale * query * args.key_weight[row * args.width + i];
    }
    for (std::int64_t i = 0; i < args.width; ++i)
      args.probe_keys[head * args.width + i] = static_cast<float>(sums[static_cast<std::size_t>(i)]);
  }
}

void probe_keys_backward_reference(OpContext& context, const ProbeKeysBackwardArgs& args) {
  const std::int64_t width = args.forward.width, head_dim = width / args.forward.heads;
  const double scale = scale_of(args.forward);
  std::vector<double> grad_probe(static_cast<std::size_t>(width));
  for (std::int64_t row = 0; row < width; ++row) {
    const float* const grad_probe_key = args.grad_probe_keys + row / head_dim * width;
    const double query = query_of(args.forward, row);
    double grad_query = 0;
    for (std::int64_t i = 0; i < width; ++i)
      grad_query += scale * args.forward.key_weight[row * width + i] * grad_probe_key[i];
    for (std::int64_t i = 0; i < width; ++i) {
      const std::int64_t at = row * width + i;
      grad_probe[static_cast<std::size_t>(i)] += args.forward.query_weight[at] * grad_query;
      if (args.grad_query_weight != nullptr) {
        args.grad_query_weight[at] =
            static_cast<float>(args.grad_query_weight[at] + grad_query * args.forward.probe[i]);
      }
      if (args.grad_key_weight != nullptr) {
        args.grad_key_weight[at] = static_cast<float>(args.grad_key_weight[at] + scale * query * grad_probe_key[i]);
      }
    }
    if (args.grad_query_bias != nullptr) {
      args.grad_query_bias[row] = static_cast<float>(args.grad_query_bias[row] + grad_query);
    }
  }
  if (args.grad_probe == nullptr) return;
  for (std::int64_t i = 0; i < width; ++i)
    args.grad_probe[i] = static_cast<float>(args.grad_probe[i] + grad_probe[static_cast<std::size_t>(i)]);
}

}  // namespace siglip2
