// The oracle: one head of one sequence at a time, in double precision.
#include <cmath>
#include <limits>
#include <vector>

#include "ops/map_pool/map_pool.h"

namespace siglip2 {

void map_pool_reference(OpContext& context, const MapPoolArgs& args) {
  const std::int64_t width = args.tokens.columns;
  const std::int64_t head_dim = width / args.heads;
  for (std::int64_t s = 0; s < args.sequences; ++s) {
    const std::int64_t count = args.offsets[s + 1] - args.offsets[s];
    const float* const tokens = args.tokens.as<float>() + args.offsets[s] * args.tokens.stride;
    for (std::int64_t head = 0; head < args.heads; ++head) {
      std::vector<double> weights(static_cast<std::size_t>(count));
      double most = -std::numeric_limits<double>::infinity();
      for (std::int64_t j = 0; j < count; ++j) {
        double score = 0;
        for (std::int64_t i = 0; i < width; ++i) {
          score += static_cast<double>(args.probe_keys[head * width + i]) * tokens[j * args.tokens.stride + i];
        }
        weights[static_cast<std::size_t>(j)] = score;
        if (!(score <= most)) most = score;
      }
      double total = 0;
      for (double& weight : weights) {
        weight = std::exp(weight - most);
        total += weight;
      }
      std::vector<double> pooled(static_cast<std::size_t>(width));
      for (std::int64_t j = 0; j < count; ++j) {
        for (std::int64_t i = 0; i < width; ++i) {
          pooled[static_cast<std::size_t>(i)] +=
              weights[static_cast<std::size_t>(j)] / total * tokens[j * args.tokens.stride + i];
        }
      }
      for (std::int64_t out = head * head_dim; out < (head + 1) * head_dim; ++out) {
        double sum = args.value_bias[out];
        for (std::int64_t i = 0; i < width; ++i) {
          sum += pooled[static_cast<std::size_t>(i)] * args.value_weight[out * width + i];
        }
        args.output.as<float>()[s * args.output.stride + out] = static_cast<float>(sum);
      }
    }
  }
}

}  // namespace siglip2
