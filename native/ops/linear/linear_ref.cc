// The oracle: weights kept row-major in float32, every sum in double precision and in order. Where the weight is packed
// in bfloat16 its values and those of the input are rounded to it.
#include <cmath>
#include <vector>

#include "ops/linear/linear.h"
#include "tensor/convert.h"

namespace siglip2 {
namespace {

double gelu_tanh(double z) {
  const double pi = 3.14159265358979323846;
  const double u = std::sqrt(2.0 / pi) * (z + 0.044715 * z * z * z);
  // 1 + tanh(u) = 2/(1 + e^−2u), without the cancellation at large negative u.
  return std::isinf(z) && z < 0 ? -0.0 : z / (1.0 + std::exp(-2.0 * u));
}

}  // namespace

std::size_t packed_weight_bytes_reference(std::int64_t out_features, std::int64_t in_features, DType dtype) {
  return static_cast<std::size_t>(out_features) * static_cast<std::size_t>(in_features) * sizeof(float);
}

void pack_weight_reference(OpContext& context, const PackWeightArgs& args) {
  float* const packed = static_cast<float*>(args.packed);
  std::int64_t stacked_rows = 0;
  for (int i = 0; i < args.part_count; ++i)
    stacked_rows += args.parts[i].rows;
  const std::int64_t columns = args.parts[0].columns;
  std::vector<float> values(static_cast<std::size_t>(columns));
  std::int64_t stacked_row = 0;
  for (int i = 0; i < args.part_count; ++i) {
    const ConstMatrixView& part = args.parts[i];
    const std::size_t row_bytes = static_cast<std::size_t>(part.stride) * size_of(part.dtype);
    for (std::int64_t row = 0; row < part.rows; ++row, ++stacked_row) {
      widen_to_float(part.dtype, static_cast<const char*>(part.data) + static_cast<std::size_t>(row) * row_bytes,
                     values.data(), values.size());
      for (std::int64_t column = 0; column < columns; ++column) {
        const std::int64_t index =
            args.transpose ? column * stacked_rows + stacked_row : stacked_row * columns + column;
        const float value = values[static_cast<std::size_t>(column)];
        packed[index] = args.dtype == DType::kBFloat16 ? round_to_bfloat16(value) : value;
      }
    }
  }
}

void linear_reference(OpContext& context, const LinearArgs& args) {
  const std::int64_t in_features = args.weight.in_features;
  std::vector<float> input(static_cast<std::size_t>(in_features));
  for (std::int64_t row = 0; row < args.input.rows; ++row) {
    const float* const source = args.input.as<float>() + row * args.input.stride;
    for (std::int64_t k = 0; k < in_features; ++k)
      input[static_cast<std::size_t>(k)] =
          args.weight.dtype == DType::kBFloat16 ? round_to_bfloat16(source[k]) : source[k];
    float* const output = args.output.as<float>() + row * args.output.stride;
    for (std::int64_t out = 0; out < args.weight.out_features; ++out) {
      const float* const weight = static_cast<const float*>(args.weight.data) + out * in_features;
      double sum = args.bias != nullptr ? args.bias[out] : 0.0;
      for (std::int64_t k = 0; k < in_features; ++k)
        sum += static_cast<double>(input[static_cast<std::size_t>(k)]) * weight[k];
      if (args.activation == Activation::kGeluTanh) sum = gelu_tanh(sum);
      if (args.residual.data != nullptr) sum += args.residual.as<float>()[row * args.residual.stride + out];
      output[out] = static_cast<float>(sum);
    }
  }
}

void linear_backward_reference(OpContext& context, const LinearBackwardArgs& args) {
  const std::int64_t in_features = args.input.columns;
  for (std::int64_t out = 0; out < args.grad_output.columns; ++out) {
    const float* const grad_output = args.grad_output.as<float>() + out;
    for (std::int64_t in = 0; in < in_features; ++in) {
      double sum = args.grad_weight[out * in_features + in];
      for (std::int64_t row = 0; row < args.input.rows; ++row) {
        const double input = args.input.as<float>()[row * args.input.stride + in];
        sum += grad_output[row * args.grad_output.stride] * input;
      }
      args.grad_weight[out * in_features + in] = static_cast<float>(sum);
    }
    if (args.grad_bias == nullptr) continue;
    double sum = args.grad_bias[out];
    for (std::int64_t row = 0; row < args.input.rows; ++row)
      sum += grad_output[row * args.grad_output.stride];
    args.grad_bias[out] = static_cast<float>(sum);
  }
}

}  // namespace siglip2
