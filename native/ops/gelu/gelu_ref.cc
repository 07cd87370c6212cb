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

}  // namespace siglip2
