// Gradients of the simple layers as functions of tensors, as in addon/kernel_functions.cc. Gradients of parameters are
// accumulated from zero.
#include "addon/kernel_arguments.h"
#include "ops/gelu/gelu.h"
#include "ops/l2_normalize/l2_normalize.h"
#include "ops/layer_norm/layer_norm.h"
#include "ops/linear/linear.h"

namespace siglip2::addon {
namespace {

TensorPointer new_zeros(Device& device, OpContext& context, Shape shape) {
  auto tensor = new_tensor(device, std::move(shape));
  device.table().fill_zero(context, tensor->buffer.data(), tensor->buffer.bytes());
  return tensor;
}

// linearBackward({ input [rows, in], weight [out, in], gradOutput [rows, out], inputActivation, weightDtype? }):
// gradInput [rows, in], gradWeight [out, in], gradBias [out]
Napi::Value run_linear_backward(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    KernelArguments arguments(info);
    const auto input = arguments.free_activation("input", 2);
    const auto weight = arguments.stored("weight", 2);
    const Shape weight_shape = {weight->shape[0], input->shape[1]};
    if (weight->shape != weight_shape)
      throw Error(kErrorShape, "weight: expected shape " + describe(weight_shape) + ", got " + describe(weight->shape));
    const auto grad_output = arguments.free_activation_of_shape("gradOutput", {input->shape[0], weight_shape[0]});
    const Activation activation = arguments.activation_function("inputActivation");
    const DType weight_type = arguments.type("weightDtype", input->dtype);
    const auto packed = std::make_shared<PackedOnce>(weight, weight_type, true);
    return submit(info, arguments, [=](Device& device, OpContext& context) -> Outputs {
      const OpTable& table = device.table();
      const auto grad_input = new_tensor(device, input->shape, input->dtype);
      const auto grad_weight = new_zeros(device, context, weight->shape);
      const auto grad_bias = new_zeros(device, context, {weight->shape[0]});
      LinearArgs product;
      product.input = matrix(*grad_output);
      product.weight = packed->get(device, context);
      product.output = matrix(*grad_input);
      LinearBackwardArgs gradients = {matrix(*input), matrix(*grad_output), grad_weight->buffer.as<float>(),
                                      grad_bias->buffer.as<float>(), weight_type};
      // One after the other, on devices that do not fuse them.
      const bool apart = activation == Activation::kGeluTanh && !table.fuses_gelu;
      const auto activated = apart ? new_tensor(device, input->shape, input->dtype) : input;
      if (apart) {
        gelu(table, context, {matrix(*input), matrix(*activated)});
        gradients.input = matrix(*activated);
      } else if (activation == Activation::kGeluTanh) {
        gradients.input_activation = activation;
        product.pre_activation = matrix(*input);
      }
      linear(table, context, product);
      linear_backward(table, context, gradients);
      if (apart) gelu_backward(table, context, {matrix(*input), matrix(*grad_input), matrix(*grad_input)});
      return {{"gradInput", grad_input}, {"gradWeight", grad_weight}, {"gradBias", grad_bias}};
    });
  });
}

// layerNormBackward({ input [rows, width], weight [width], gradOutput [rows, width], epsilon }): gradInput,
// gradWeight [width], gradBias [width]
Napi::Value run_layer_norm_backward(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    KernelArguments arguments(info);
    const auto input = arguments.activation("input", 2);
    const auto weight = arguments.tensor_of_shape("weight", {input->shape[1]});
    const auto grad_output = arguments.activation_of_shape("gradOutput", input->shape);
    const auto epsilon = static_cast<float>(to_number(arguments.get("epsilon"), "epsilon"));
    return submit(info, arguments, [=](Device& device, OpContext& context) -> Outputs {
      const auto grad_input = new_tensor(device, input->shape, input->dtype);
      const auto grad_weight = new_zeros(device, context, weight->shape);
      const auto grad_bias = new_zeros(device, context, weight->shape);
      const auto statistics = new_tensor(device, {input->shape[0], 2});
      LayerNormBackwardArgs args;
      args.input = matrix(*input);
      args.weight = floats(weight);
      args.epsilon = epsilon;
      args.grad_output = matrix(*grad_output);
      args.grad_input = matrix(*grad_input);
      args.grad_weight = grad_weight->buffer.as<float>();
      args.grad_bias = grad_bias->buffer.as<float>();
      args.statistics = matrix(*statistics);
      layer_norm_backward(device.table(), context, args);
      return {{"gradInput", grad_input}, {"gradWeight", grad_weight}, {"gradBias", grad_bias}};
    });
  });
}

// geluBackward({ input [rows, columns], gradOutput [rows, columns] }): gradInput. l2NormalizeBackward of the same,
// with a type of its own for each: gradInput in that of the input
template <typename Args, void (*operation)(const OpTable&, OpContext&, const Args&)>
Napi::Value run_rowwise_backward(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    KernelArguments arguments(info);
    const auto input = arguments.free_activation("input", 2);
    const auto grad_output = arguments.free_activation("gradOutput", 2);
    if (grad_output->shape != input->shape)
      throw Error(kErrorShape,
                  "gradOutput: expected shape " + describe(input->shape) + ", got " + describe(grad_output->shape));
    return submit(info, arguments, [=](Device& device, OpContext& context) -> Outputs {
      const auto grad_input = new_tensor(device, input->shape, input->dtype);
      operation(device.table(), context, {matrix(*input), matrix(*grad_output), matrix(*grad_input)});
      return {{"gradInput", grad_input}};
    });
  });
}

}  // namespace

void add_layer_backward_functions(Napi::Env env, Napi::Object exports) {
  const auto add = [&](const char* name, Napi::Value (*function)(const Napi::CallbackInfo&)) {
    exports.Set(name, Napi::Function::New(env, function, name));
  };
  add("linearBackward", run_linear_backward);
  add("layerNormBackward", run_layer_norm_backward);
  add("geluBackward", run_rowwise_backward<GeluBackwardArgs, siglip2::gelu_backward>);
  add("l2NormalizeBackward", run_rowwise_backward<L2NormalizeBackwardArgs, siglip2::l2_normalize_backward>);
}

}  // namespace siglip2::addon
