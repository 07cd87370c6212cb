#include <cmath>
#include <vector>

#include "ops/layer_norm/layer_norm.h"
#include "tensor/elements.h"

namespace siglip2 {

void layer_norm_reference(OpContext& context, const LayerNormArgs& args) {
  const std::int64_t width = args.input.columns;
  for (std::int64_t row = 0; row < args.input.rows; ++row) {
    const float* const input = args.input.as<float>() + row * args.input.stride;
    double mean = 0;
    for (std::int64_t i = 0; i < width; ++i)
      mean += input[i];
    mean /= static_cast<double>(width);
    double variance = 0;
    for (std::int64_t i = 0; i < width; ++i)
      variance += (input[i] - mean) * (input[i] - mean);
    variance /= static_cast<double>(width);
    const double scale = 1.0 / std::sqrt(variance + static_cast<double>(args.epsilon));
    for (std::int64_t i = 0; i < width; ++i) {
      set_element(args.output, row, i, (input[i] - mean) * scale * args.weight[i] + args.bias[i]);
    }
  }
}

void layer_norm_backward_reference(OpContext& context, const LayerNormBackwardArgs& args) {
  const std::int64_t rows = args.input.rows, width = args.input.columns;
  std::vector<double> normed(static_cast<std::size_t>(width));
  std::vector<double> weight_sums(static_cast<std::size_t>(width)), bias_sums(static_cast<std::size_t>(width));
  for (std::int64_t row = 0; row < rows; ++row) {
    const float* const input = args.input.as<float>() + row * args.input.stride;
    const float* const grad_output = args.grad_output.as<float>() + row * args.grad_output.stride;
    float* const grad_input = args.grad_input.as<float>() + row * args.grad_input.stride;
    float* const statistics = args.statistics.as<float>() + row * args.statistics.stride;
    double mean = 0;
    for (std::int64_t i = 0; i < width; ++i)
      mean += input[i];
    mean /= static_cast<double>(width);
    double variance = 0;
    for (std::int64_t i = 0; i < width; ++i)
      variance += (input[i] - mean) * (input[i] - mean);
    variance /= static_cast<double>(width);
    const double scale = 1.0 / std::sqrt(variance + static_cast<double>(args.epsilon));
    statistics[0] = static_cast<float>(mean);
    statistics[1] = static_cast<float>(scale);

    double mean_grad = 0, mean_product = 0;
    for (std::int64_t i = 0; i < width; ++i) {
      const auto index = static_cast<std::size_t>(i);
      normed[index] = (input[i] - mean) * scale;
      const double grad = static_cast<double>(grad_output[i]) * args.weight[i];
      mean_grad += grad / static_cast<double>(width);
      mean_product += grad * normed[index] / static_cast<double>(width);
      weight_sums[index] += grad_output[i] * normed[index];
      bias_sums[index] += grad_output[i];
    }
    for (std::int64_t i = 0; i < width; ++i) {
      const double grad = static_cast<double>(grad_output[i]) * args.weight[i];
      const double value = (grad - mean_grad - normed[static_cast<std::size_t>(i)] * mean_product) * scale;
      grad_input[i] = static_cast<float>(args.accumulate ? grad_input[i] + value : value);
    }
  }
  if (args.grad_weight == nullptr) return;
  for (std::int64_t i = 0; i < width; ++i) {
    args.grad_weight[i] = static_cast<float>(args.grad_weight[i] + weight_sums[static_cast<std::size_t>(i)]);
    args.grad_bias[i] = static_cast<float>(args.grad_bias[i] + bias_sums[static_cast<std::size_t>(i)]);
  }
}

}  // namespace siglip2
