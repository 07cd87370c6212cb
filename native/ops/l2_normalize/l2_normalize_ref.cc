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

void l2_normalize_backward_reference(OpContext& context, const L2NormalizeBackwardArgs& args) {
  const std::int64_t width = args.input.columns;
  for (std::int64_t row = 0; row < args.input.rows; ++row) {
    const float* const input = args.input.as<float>() + row * args.input.stride;
    const float* const grad_output = args.grad_output.as<float>() + row * args.grad_output.stride;
    float* const grad_input = args.grad_input.as<float>() + row * args.grad_input.stride;
    double squares = 0;
    for (std::int64_t i = 0; i < width; ++i)
      squares += static_cast<double>(input[i]) * input[i];
    const double norm = std::sqrt(squares);
    double projection = 0;  // grad_output · y
    for (std::int64_t i = 0; i < width && norm != 0; ++i)
      projection += grad_output[i] * (input[i] / norm);
    for (std::int64_t i = 0; i < width; ++i) {
      grad_input[i] = norm == 0 ? 0.0f : static_cast<float>((grad_output[i] - projection * (input[i] / norm)) / norm);
    }
  }
}

}  // namespace siglip2
