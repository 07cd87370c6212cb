// The oracle: weights kept row-major in float32, every sum in double precision and in order, GELU of the input rounded
// to float32 before anything else. Where the weight is packed in bfloat16 its values and those of the input are rounded
// to it, and so are the operands of weight gradients; in int8 both are integers times scales.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "ops/gelu/gelu_double.h"
#include "ops/linear/linear.h"
#include "tensor/elements.h"

namespace siglip2 {
namespace {

// Rounds values to integers from −127 to 127 in place and returns their scale: NaN where a value is not finite.
float quantize(float* values, std::int64_t count) {
  float largest = 0;
  bool finite = true;
  for (std::int64_t i = 0; i < count; ++i) {
    finite = finite && std::isfinite(values[i]);
    largest = std::max(largest, std::fabs(values[i]));
  }
  const bool usable = finite && largest > 1e-30f;
  const float inverse = usable ? 127.0f / largest : 0.0f;
  for (std::int64_t i = 0; i < count; ++i)
    values[i] = usable ? std::nearbyint(values[i] * inverse) : 0.0f;
  if (!finite) return std::numeric_limits<float>::quiet_NaN();
  return usable ? largest / 127.0f : 0.0f;
}

float input_of(Activation activation, float value) {
  return activation == Activation::kGeluTanh ? static_cast<float>(gelu_tanh_double(value)) : value;
}

}  // namespace

// In int8 the scales [out_features] follow the integers.
std::size_t packed_weight_bytes_reference(std::int64_t out_features, std::int64_t in_features, DType dtype) {
  const std::int64_t columns = in_features + (dtype == DType::kInt8 ? 1 : 0);
  return static_cast<std::size_t>(out_features * columns) * sizeof(float);
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
      if (args.dtype == DType::kInt8) packed[stacked_rows * columns + stacked_row] = quantize(values.data(), columns);
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
    for (std::int64_t k = 0; k < in_features; ++k) {
      const float value = input_of(args.input_activation, element(args.input, row, k));
      input[static_cast<std::size_t>(k)] = args.weight.dtype == DType::kBFloat16 ? round_to_bfloat16(value) : value;
    }
    const bool quantized = args.weight.dtype == DType::kInt8;
    const double row_scale = quantized ? quantize(input.data(), in_features) : 1.0;
    for (std::int64_t out = 0; out < args.weight.out_features; ++out) {
      const float* const weight = static_cast<const float*>(args.weight.data) + out * in_features;
      double sum = 0.0;
      for (std::int64_t k = 0; k < in_features; ++k)
        sum += static_cast<double>(input[static_cast<std::size_t>(k)]) * weight[k];
      const float* const scales = static_cast<const float*>(args.weight.data) + args.weight.out_features * in_features;
      if (quantized) sum *= row_scale * scales[out];
      if (args.bias != nullptr) sum += args.bias[out];
      if (args.activation == Activation::kGeluTanh) sum = gelu_tanh_double(sum);
      if (args.pre_activation.data != nullptr)
        sum *= gelu_tanh_derivative_double(element(args.pre_activation, row, out));
      if (args.residual.data != nullptr) sum += element(args.residual, row, out);
      set_element(args.output, row, out, sum);
    }
  }
}

void linear_backward_reference(OpContext& context, const LinearBackwardArgs& args) {
  const std::int64_t in_features = args.input.columns;
  const auto operand = [&](float value) {
    return args.product_type == DType::kBFloat16 ? round_to_bfloat16(value) : value;
  };
  for (std::int64_t out = 0; out < args.grad_output.columns; ++out) {
    for (std::int64_t in = 0; in < in_features; ++in) {
      double sum = args.grad_weight[out * in_features + in];
      for (std::int64_t row = 0; row < args.input.rows; ++row) {
        const double input = operand(input_of(args.input_activation, element(args.input, row, in)));
        sum += operand(element(args.grad_output, row, out)) * input;
      }
      args.grad_weight[out * in_features + in] = static_cast<float>(sum);
    }
    if (args.grad_bias == nullptr) continue;
    double sum = args.grad_bias[out];
    for (std::int64_t row = 0; row < args.input.rows; ++row)
      sum += element(args.grad_output, row, out);
    args.grad_bias[out] = static_cast<float>(sum);
  }
}

}  // namespace siglip2
