// The oracle: the formulas of map_pool.h, one head of one sequence at a time, in double precision. The workspace is not
// used.
#include <cmath>
#include <limits>
#include <vector>

#include "ops/map_pool/map_pool.h"

namespace siglip2 {
namespace {

// Gradients with respect to the parameters, summed over sequences.
struct ParameterGradients {
  std::vector<double> probe_keys;
  std::vector<double> value_weight;
  std::vector<double> value_bias;
};

std::vector<double> softmax(const std::vector<double>& scores) {
  double most = -std::numeric_limits<double>::infinity();
  for (const double score : scores)
    if (!(score <= most)) most = score;
  std::vector<double> weights;
  double total = 0;
  for (const double score : scores) {
    weights.push_back(std::exp(score - most));
    total += weights.back();
  }
  for (double& weight : weights)
    weight /= total;
  return weights;
}

// Adds one head of sequence `s` to the gradients; `grad_tokens` is [tokens of the sequence, width].
void differentiate(const MapPoolBackwardArgs& args, std::int64_t s, std::int64_t head, std::vector<double>& grad_tokens,
                   ParameterGradients& sums) {
  const auto width = static_cast<std::size_t>(args.tokens.columns);
  const std::size_t head_dim = width / static_cast<std::size_t>(args.heads);
  const auto count = static_cast<std::size_t>(args.offsets[s + 1] - args.offsets[s]);
  const float* const probe_key = args.probe_keys + static_cast<std::size_t>(head) * width;
  const float* const grad_output = args.grad_output.as<float>() + s * args.grad_output.stride;
  const auto token = [&](std::size_t j) {
    return args.tokens.as<float>() + (args.offsets[s] + static_cast<std::int64_t>(j)) * args.tokens.stride;
  };
  const auto dot = [&](const auto* a, const auto* b) {
    double sum = 0;
    for (std::size_t i = 0; i < width; ++i)
      sum += static_cast<double>(a[i]) * b[i];
    return sum;
  };

  std::vector<double> scores;
  for (std::size_t j = 0; j < count; ++j)
    scores.push_back(dot(probe_key, token(j)));
  const std::vector<double> weights = softmax(scores);
  std::vector<double> pooled(width), grad_pooled(width);
  for (std::size_t j = 0; j < count; ++j) {
    for (std::size_t i = 0; i < width; ++i)
      pooled[i] += weights[j] * token(j)[i];
  }
  for (std::size_t out = static_cast<std::size_t>(head) * head_dim, end = out + head_dim; out < end; ++out) {
    for (std::size_t i = 0; i < width; ++i) {
      grad_pooled[i] += static_cast<double>(args.value_weight[out * width + i]) * grad_output[out];
      sums.value_weight[out * width + i] += grad_output[out] * pooled[i];
    }
    sums.value_bias[out] += grad_output[out];
  }
  for (std::size_t j = 0; j < count; ++j) {
    const double gradient = weights[j] * (dot(grad_pooled.data(), token(j)) - dot(grad_pooled.data(), pooled.data()));
    for (std::size_t i = 0; i < width; ++i) {
      sums.probe_keys[static_cast<std::size_t>(head) * width + i] += gradient * token(j)[i];
      grad_tokens[j * width + i] += weights[j] * grad_pooled[i] + gradient * probe_key[i];
    }
  }
}

void add(const std::vector<double>& source, float* target) {
  for (std::size_t i = 0; i < source.size(); ++i)
    target[i] = static_cast<float>(target[i] + source[i]);
}

}  // namespace

void map_pool_backward_reference(OpContext& context, const MapPoolBackwardArgs& args) {
  const auto width = static_cast<std::size_t>(args.tokens.columns);
  ParameterGradients sums = {std::vector<double>(static_cast<std::size_t>(args.heads) * width),
                             std::vector<double>(width * width), std::vector<double>(width)};
  for (std::int64_t s = 0; s < args.sequences; ++s) {
    const std::int64_t count = args.offsets[s + 1] - args.offsets[s];
    std::vector<double> grad_tokens(static_cast<std::size_t>(count) * width);
    for (std::int64_t head = 0; head < args.heads; ++head)
      differentiate(args, s, head, grad_tokens, sums);
    if (args.grad_tokens.data == nullptr) continue;
    for (std::size_t i = 0; i < grad_tokens.size(); ++i) {
      const std::int64_t row = args.offsets[s] + static_cast<std::int64_t>(i / width);
      args.grad_tokens.as<float>()[row * args.grad_tokens.stride + static_cast<std::int64_t>(i % width)] =
          static_cast<float>(grad_tokens[i]);
    }
  }
  if (args.grad_probe_keys == nullptr) return;
  add(sums.probe_keys, args.grad_probe_keys);
  add(sums.value_weight, args.grad_value_weight);
  add(sums.value_bias, args.grad_value_bias);
}

}  // namespace siglip2
