// The first half of a transformer block as a function of tensors; see addon/kernel_functions.cc.
#include "ops/self_attention/self_attention.h"

#include <limits>

#include "addon/kernel_arguments.h"

namespace siglip2::addon {
namespace {

// One operation after the other, on devices that do not fuse them.
void run_apart(Device& device, OpContext& context, const SelfAttentionArgs& args) {
  check_self_attention(device.table(), args);
  const OpTable& table = device.table();
  const NormParameters& norm = args.norm;
  const DType type = args.input.dtype;
  const std::int64_t rows = args.input.rows, width = args.input.columns;
  // Attention's output takes the place of the normed rows.
  const auto scratch = new_tensor(device, {rows, width}, type);
  const auto joint_tensor = new_tensor(device, {rows, 3 * width}, type);
  const MatrixView attended = matrix(*scratch), joint = matrix(*joint_tensor);
  ConstMatrixView input = args.input;
  if (norm.weight != nullptr) {
    layer_norm(table, context, {args.input, norm.weight, norm.bias, norm.epsilon, attended});
    input = attended;
  }
  linear(table, context, {input, args.query_key_value, args.query_key_value_bias, Activation::kNone, {}, joint});
  const AttentionInputs sequences = joint_attention(joint, args.heads, args.offsets, args.sequences);
  attention(table, context, {sequences, attended, {}, attention_product_type(type, args.out_proj.dtype)});
  linear(table, context, {attended, args.out_proj, args.out_proj_bias, Activation::kNone, args.residual, args.output});
}

// selfAttention({ input [rows, width], offsets, heads, normWeight?, normBias? [width], epsilon,
// queryKeyValueWeight [3·width, width], queryKeyValueBias? [3·width], outWeight [width, width], outBias? [width],
// residual? [rows, width], weightDtype? }): output [rows, width]
Napi::Value run_self_attention(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    KernelArguments arguments(info);
    const auto input = arguments.activation("input", 2);
    const std::int64_t rows = input->shape[0], width = input->shape[1];
    const auto offsets = to_int32s(arguments.get("offsets"), "offsets");
    if (offsets.empty()) throw Error(kErrorShape, "offsets: expected at least one entry");
    const std::int64_t heads = to_integer(arguments.get("heads"), "heads", 1, std::numeric_limits<int>::max());
    const auto norm_weight = arguments.optional_tensor("normWeight", {width});
    const auto norm_bias = arguments.optional_tensor("normBias", {width});
    const auto epsilon = static_cast<float>(to_number(arguments.get("epsilon"), "epsilon"));
    const auto joint_weight = arguments.stored("queryKeyValueWeight", 2);
    const auto joint_bias = arguments.optional_tensor("queryKeyValueBias", {3 * width});
    const auto out_weight = arguments.stored("outWeight", 2);
    const auto out_bias = arguments.optional_tensor("outBias", {width});
    const auto residual = arguments.optional_activation("residual", {rows, width});
    const DType weight_type = arguments.type("weightDtype", input->dtype);
    const auto joint = std::make_shared<PackedOnce>(joint_weight, weight_type, false);
    const auto out = std::make_shared<PackedOnce>(out_weight, weight_type, false);
    return submit(info, arguments, [=](Device& device, OpContext& context) -> Outputs {
      const auto output = new_tensor(device, input->shape, input->dtype);
      SelfAttentionArgs args;
      args.input = matrix(*input);
      args.norm = {floats(norm_weight), floats(norm_bias), epsilon};
      args.query_key_value = joint->get(device, context);
      args.query_key_value_bias = floats(joint_bias);
      args.out_proj = out->get(device, context);
      args.out_proj_bias = floats(out_bias);
      args.offsets = offsets.data();
      args.sequences = static_cast<std::int64_t>(offsets.size()) - 1;
      args.heads = static_cast<int>(heads);
      if (residual) args.residual = matrix(*residual);
      args.output = matrix(*output);
      const bool fused = device.table().self_attention != nullptr;
      fused ? self_attention(device.table(), context, args) : run_apart(device, context, args);
      return {{"output", output}};
    });
  });
}

}  // namespace

void add_self_attention_functions(Napi::Env env, Napi::Object exports) {
  exports.Set("selfAttention", Napi::Function::New(env, run_self_attention, "selfAttention"));
}

}  // namespace siglip2::addon
