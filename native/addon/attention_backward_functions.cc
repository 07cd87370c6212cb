// Gradients of attention and of the pooling head as functions of tensors; see addon/kernel_functions.cc. Results are
// new tensors: where an operation accumulates, from zero.
#include "addon/attention_arguments.h"
#include "ops/attention/attention.h"
#include "ops/map_pool/map_pool.h"

namespace siglip2::addon {
namespace {

TensorPointer new_zero_tensor(Device& device, OpContext& context, const Shape& shape) {
  TensorPointer tensor = new_tensor(device, shape);
  device.table().fill_zero(context, tensor->buffer.data(), tensor->buffer.bytes());
  return tensor;
}

float* mutable_floats(const TensorPointer& tensor) {
  return tensor->buffer.as<float>();
}

// attentionBackward({ query [Σq, heads, headDim], key, value [Σk, heads, headDim], queryOffsets, keyOffsets, causal,
// scale, productDtype?, output, gradOutput [Σq, heads, headDim], logSumExp [Σq, heads] }): gradQuery, gradKey,
// gradValue
Napi::Value run_attention_backward(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    KernelArguments arguments(info);
    const AttentionTensors tensors(arguments);
    const Shape& shape = tensors.query->shape;
    const auto output = arguments.free_activation_of_shape("output", shape);
    const auto log_sum_exp = arguments.tensor_of_shape("logSumExp", {shape[0], shape[1]});
    const auto grad_output = arguments.free_activation_of_shape("gradOutput", shape);
    const DType product_type = tensors.product_type(arguments);
    return submit(info, arguments, [=](Device& device, OpContext& context) -> Outputs {
      const DType type = tensors.query->dtype;
      const auto grad_query = new_tensor(device, tensors.query->shape, type);
      const auto grad_key = new_tensor(device, tensors.key->shape, type);
      const auto grad_value = new_tensor(device, tensors.key->shape, type);
      attention_backward(device.table(), context,
                         {tensors.inputs(), matrix(*output), matrix(*log_sum_exp), matrix(*grad_output),
                          matrix(*grad_query), matrix(*grad_key), matrix(*grad_value), product_type});
      return {{"gradQuery", grad_query}, {"gradKey", grad_key}, {"gradValue", grad_value}};
    });
  });
}

// mapPoolBackward({ tokens [Σ tokens, width], offsets, probeKeys [heads, width], valueWeight [width, width],
// gradOutput [sequences, width] }): gradTokens, gradProbeKeys, gradValueWeight, gradValueBias
Napi::Value run_map_pool_backward(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    KernelArguments arguments(info);
    const auto tokens = arguments.activation("tokens", 2);
    const std::int64_t width = tokens->shape[1];
    const auto probe_keys = arguments.tensor("probeKeys", 2);
    const auto value_weight = arguments.tensor_of_shape("valueWeight", {width, width});
    auto offsets = to_int32s(arguments.get("offsets"), "offsets");
    if (offsets.empty()) throw Error(kErrorShape, "offsets: expected at least one entry");
    const auto sequences = static_cast<std::int64_t>(offsets.size()) - 1;
    const auto grad_output = arguments.activation_of_shape("gradOutput", {sequences, width});
    const std::int64_t heads = probe_keys->shape[0];
    if (probe_keys->shape[1] != width)
      throw Error(kErrorShape, "probeKeys: expected shape [heads, " + std::to_string(width) + "], got " +
                                   describe(probe_keys->shape));
    return submit(info, arguments, [=](Device& device, OpContext& context) -> Outputs {
      const auto grad_tokens = new_tensor(device, tokens->shape, tokens->dtype);
      const auto grad_probe_keys = new_zero_tensor(device, context, probe_keys->shape);
      const auto grad_value_weight = new_zero_tensor(device, context, value_weight->shape);
      const auto grad_value_bias = new_zero_tensor(device, context, {width});
      const auto pooled = new_tensor(device, {sequences, heads, width});
      const auto grad_pooled = new_tensor(device, {sequences, heads, width});
      MapPoolBackwardArgs args;
      args.tokens = matrix(*tokens);
      args.offsets = offsets.data();
      args.sequences = sequences;
      args.heads = static_cast<int>(heads);
      args.probe_keys = floats(probe_keys);
      args.value_weight = floats(value_weight);
      args.grad_output = matrix(*grad_output);
      args.grad_tokens = matrix(*grad_tokens);
      args.grad_probe_keys = mutable_floats(grad_probe_keys);
      args.grad_value_weight = mutable_floats(grad_value_weight);
      args.grad_value_bias = mutable_floats(grad_value_bias);
      args.pooled = matrix(*pooled);
      args.grad_pooled = matrix(*grad_pooled);
      map_pool_backward(device.table(), context, args);
      return {{"gradTokens", grad_tokens},
              {"gradProbeKeys", grad_probe_keys},
              {"gradValueWeight", grad_value_weight},
              {"gradValueBias", grad_value_bias}};
    });
  });
}

// What probeKeys and probeKeysBackward read.
struct ProbeTensors {
  explicit ProbeTensors(KernelArguments& arguments) : probe(arguments.tensor("probe", 1)) {
    const std::int64_t width = probe->shape[0];
    query_weight = arguments.tensor_of_shape("queryWeight", {width, width});
    query_bias = arguments.tensor_of_shape("queryBias", {width});
    key_weight = arguments.tensor_of_shape("keyWeight", {width, width});
  }
  ProbeKeysArgs args(std::int64_t heads) const {
    return {floats(probe),
            floats(query_weight),
            floats(query_bias),
            floats(key_weight),
            probe->shape[0],
            static_cast<int>(heads),
            nullptr};
  }

  TensorPointer probe;
  TensorPointer query_weight;
  TensorPointer query_bias;
  TensorPointer key_weight;
};

// probeKeys({ probe [width], queryWeight [width, width], queryBias [width], keyWeight [width, width], heads }):
// output [heads, width]
Napi::Value run_probe_keys(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    KernelArguments arguments(info);
    const ProbeTensors tensors(arguments);
    const std::int64_t width = tensors.probe->shape[0];
    const std::int64_t heads = to_integer(arguments.get("heads"), "heads", 1, width < 1 ? 1 : width);
    return submit(info, arguments, [=](Device& device, OpContext& context) -> Outputs {
      const auto output = new_tensor(device, {heads, width});
      ProbeKeysArgs args = tensors.args(heads);
      args.probe_keys = mutable_floats(output);
      probe_keys(device.table(), context, args);
      return {{"output", output}};
    });
  });
}

// probeKeysBackward({ probe, queryWeight, queryBias, keyWeight as above, gradProbeKeys [heads, width] }):
// gradProbe, gradQueryWeight, gradQueryBias, gradKeyWeight
Napi::Value run_probe_keys_backward(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    KernelArguments arguments(info);
    const ProbeTensors tensors(arguments);
    const auto grad_probe_keys = arguments.tensor("gradProbeKeys", 2);
    if (grad_probe_keys->shape[1] != tensors.probe->shape[0])
      throw Error(kErrorShape, "gradProbeKeys: expected shape [heads, " + std::to_string(tensors.probe->shape[0]) +
                                   "], got " + describe(grad_probe_keys->shape));
    return submit(info, arguments, [=](Device& device, OpContext& context) -> Outputs {
      const auto grad_probe = new_zero_tensor(device, context, tensors.probe->shape);
      const auto grad_query_weight = new_zero_tensor(device, context, tensors.query_weight->shape);
      const auto grad_query_bias = new_zero_tensor(device, context, tensors.query_bias->shape);
      const auto grad_key_weight = new_zero_tensor(device, context, tensors.key_weight->shape);
      ProbeKeysBackwardArgs args;
      args.forward = tensors.args(grad_probe_keys->shape[0]);
      args.grad_probe_keys = floats(grad_probe_keys);
      args.grad_probe = mutable_floats(grad_probe);
      args.grad_query_weight = mutable_floats(grad_query_weight);
      args.grad_query_bias = mutable_floats(grad_query_bias);
      args.grad_key_weight = mutable_floats(grad_key_weight);
      probe_keys_backward(device.table(), context, args);
      return {{"gradProbe", grad_probe},
              {"gradQueryWeight", grad_query_weight},
              {"gradQueryBias", grad_query_bias},
              {"gradKeyWeight", grad_key_weight}};
    });
  });
}

}  // namespace

void add_attention_backward_functions(Napi::Env env, Napi::Object exports) {
  const auto add = [&](const char* name, Napi::Value (*function)(const Napi::CallbackInfo&)) {
    exports.Set(name, Napi::Function::New(env, function, name));
  };
  add("attentionBackward", run_attention_backward);
  add("mapPoolBackward", run_map_pool_backward);
  add("probeKeys", run_probe_keys);
  add("probeKeysBackward", run_probe_keys_backward);
}

}  // namespace siglip2::addon
