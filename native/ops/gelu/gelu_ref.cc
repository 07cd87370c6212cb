#include "ops/gelu/gelu.h"
#include "ops/gelu/gelu_double.h"

namespace siglip2 {

void gelu_reference(OpContext& context, const GeluArgs& args) {
  for (std::int64_t row = 0; row < args.input.rows; ++row) {
    const float* const input = args.input.as<float>() + row * args.input.stride;
    float* const output = args.output.as<float>() + row * args.output.stride;
    for (std::int64_t i = 0; i < args.input.columns; ++i)
      output[i] = static_cast<float>(gelu_tanh_double(input[i]));
  }
}

void gelu_backward_reference(OpContext& context, const GeluBackwardArgs& args) {
  for (std::int64_t row = 0; row < args.input.rows; ++row) {
    const float* const input = args.input.as<float>() + row * args.input.stride;
    const float* const grad_output = args.grad_output.as<float>() + row * args.grad_output.stride;
    float* const grad_input = args.grad_input.as<float>() + row * args.grad_input.stride;
    for (std::int64_t i = 0; i < args.input.columns; ++i)
      grad_input[i] = static_cast<float>(grad_output[i] * gelu_tanh_derivative_double(input[i]));
  }
}

}  // namespace siglip2
