#include <cmath>

#include "ops/gelu/gelu.h"

namespace siglip2 {

void gelu_reference(OpContext& context, const GeluArgs& args) {
  const double factor = std::sqrt(2.0 / 3.14159265358979323846);
  for (std::int64_t row = 0; row < args.input.rows; ++row) {
    const float* const input = args.input.as<float>() + row * args.input.stride;
    float* const output = args.output.as<float>() + row * args.output.stride;
    for (std::int64_t i = 0; i < args.input.columns; ++i) {
      const double z = input[i];
      // ½(1 + tanh(u)) = 1/(1 + e^−2u), without the cancellation at large negative u; −∞ is the limit from above.
      const double u = factor * (z + 0.044715 * z * z * z);
      output[i] = std::isinf(z) && z < 0 ? -0.0f : static_cast<float>(z / (1.0 + std::exp(-2.0 * u)));
    }
  }
}

void gelu_backward_reference(OpContext& context, const GeluBackwardArgs& args) {
  const double factor = std::sqrt(2.0 / 3.14159265358979323846);
  for (std::int64_t row = 0; row < args.input.rows; ++row) {
    const float* const input = args.input.as<float>() + row * args.input.stride;
    const float* const grad_output = args.grad_output.as<float>() + row * args.grad_output.stride;
    float* const grad_input = args.grad_input.as<float>() + row * args.grad_input.stride;
    for (std::int64_t i = 0; i < args.input.columns; ++i) {
      const double z = input[i];
      const double u = factor * (z + 0.044715 * z * z * z);
      const double slope = factor * (1.0 + 0.134145 * z * z);
      // With p = ½(1 + tanh u) = 1/(1 + e^−2u), ½(1 − tanh² u) is 2p(1 − p). At infinities it vanishes faster than z u′
      // grows.
      const double p = 1.0 / (1.0 + std::exp(-2.0 * u)), rest = 1.0 / (1.0 + std::exp(2.0 * u));
      const double derivative = std::isinf(z) ? p : p + 2.0 * z * slope * p * rest;
      grad_input[i] = static_cast<float>(grad_output[i] * derivative);
    }
  }
}

}  // namespace siglip2
