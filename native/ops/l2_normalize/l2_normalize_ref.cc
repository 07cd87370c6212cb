#include <cmath>

#include "ops/l2_normalize/l2_normalize.h"

namespace siglip2 {

void l2_normalize_reference(OpContext& context, const L2NormalizeArgs& args) {
  for (std::int64_t row = 0; row < args.input.rows; ++row) {
    const float* const input = args.input.as<float>() + row * args.input.stride;
    float* const output = args.output.as<float>() + row * args.output.stride;
    double squares = 0;
    for (std::int64_t i = 0; i < args.input.columns; ++i)
      squares += static_cast<double>(input[i]) * input[i];
    const double norm = std::sqrt(squares);
    for (std::int64_t i = 0; i < args.input.columns; ++i) {
      output[i] = norm == 0 ? input[i] : static_cast<float>(input[i] / norm);
    }
  }
}

}  // namespace siglip2
