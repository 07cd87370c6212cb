#include <cmath>

#include "ops/layer_norm/layer_norm.h"

namespace siglip2 {

void layer_norm_reference(OpContext& context, const LayerNormArgs& args) {
  const std::int64_t width = args.input.columns;
  for (std::int64_t row = 0; row < args.input.rows; ++row) {
    const float* const input = args.input.as<float>() + row * args.input.stride;
    float* const output = args.output.as<float>() + row * args.output.stride;
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
      output[i] = static_cast<float>((input[i] - mean) * scale * args.weight[i] + args.bias[i]);
    }
  }
}

}  // namespace siglip2
