// The operations as functions of tensors: `kernelName({ tensors and options })`, each returning a promise of new
// tensors. Contracts are in ops/NAME/NAME.h; options common to all: `threads`.
#include <chrono>
#include <cstring>

#include "addon/attention_arguments.h"
#include "addon/image_arguments.h"
#include "addon/kernel_arguments.h"
#include "cpu/arithmetic_roof.h"
#include "ops/convert/convert.h"
#include "ops/gelu/gelu.h"
#include "ops/l2_normalize/l2_normalize.h"
#include "ops/mlp/mlp.h"

namespace siglip2::addon {
namespace {

// linear({ input [rows, in], weight [out, in], bias? [out], residual? [rows, out], activation, inputActivation,
// weightDtype?, dtype? }): output [rows, out]
Napi::Value run_linear(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    KernelArguments arguments(info);
    const auto input = arguments.free_activation("input", 2);
    const auto weight = arguments.stored("weight", 2);
    const std::int64_t out_features = weight->shape[0];
    const auto bias = arguments.optional_tensor("bias", {out_features});
    const auto residual = arguments.optional_activation("residual", {input->shape[0], out_features});
    const DType type = arguments.result_type(input->dtype);
    const Activation activation = arguments.activation_function("activation");
    const Activation input_activation = arguments.activation_function("inputActivation");
    const auto packed = std::make_shared<PackedOnce>(weight, arguments.type("weightDtype", input->dtype), false);
    return submit(info, arguments, [=](Device& device, OpContext& context) -> Outputs {
      const OpTable& table = device.table();
      const auto output = new_tensor(device, {input->shape[0], out_features}, type);
      // One after the other, on devices that do not fuse them.
      const bool apart = input_activation == Activation::kGeluTanh && !table.fuses_gelu;
      const auto source = apart ? new_tensor(device, input->shape, input->dtype) : input;
      if (apart) gelu(table, context, {matrix(*input), matrix(*source)});
      LinearArgs args;
      args.input = matrix(*source);
      args.input_activation = apart ? Activation::kNone : input_activation;
      args.weight = packed->get(device, context);
      args.bias = floats(bias);
      args.activation = activation;
      if (residual) args.residual = matrix(*residual);
      args.output = matrix(*output);
      linear(table, context, args);
      return {{"output", output}};
    });
  });
}

// mlp({ input [rows, width], normWeight?, normBias? [width], epsilon, fc1Weight [intermediate, width], fc1Bias?,
// fc2Weight [width, intermediate], fc2Bias?, residual? [rows, width], weightDtype? }): output [rows, width]
Napi::Value run_mlp(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    KernelArguments arguments(info);
    const auto input = arguments.activation("input", 2);
    const std::int64_t rows = input->shape[0], width = input->shape[1];
    const auto norm_weight = arguments.optional_tensor("normWeight", {width});
    const auto norm_bias = arguments.optional_tensor("normBias", {width});
    const auto epsilon = static_cast<float>(to_number(arguments.get("epsilon"), "epsilon"));
    const auto fc1_weight = arguments.stored("fc1Weight", 2);
    const std::int64_t intermediate = fc1_weight->shape[0];
    const auto fc1_bias = arguments.optional_tensor("fc1Bias", {intermediate});
    const auto fc2_weight = arguments.stored("fc2Weight", 2);
    const auto fc2_bias = arguments.optional_tensor("fc2Bias", {width});
    const auto residual = arguments.optional_activation("residual", {rows, width});
    const DType weight_type = arguments.type("weightDtype", input->dtype);
    const auto fc1 = std::make_shared<PackedOnce>(fc1_weight, weight_type, false);
    const auto fc2 = std::make_shared<PackedOnce>(fc2_weight, weight_type, false);
    return submit(info, arguments, [=](Device& device, OpContext& context) -> Outputs {
      const OpTable& table = device.table();
      const auto output = new_tensor(device, input->shape, input->dtype);
      const NormParameters norm = {floats(norm_weight), floats(norm_bias), epsilon};
      MlpArgs args = {matrix(*input),
                      norm,
                      fc1->get(device, context),
                      floats(fc1_bias),
                      fc2->get(device, context),
                      floats(fc2_bias),
                      {},
                      matrix(*output)};
      if (residual) args.residual = matrix(*residual);
      if (table.mlp != nullptr) {
        mlp(table, context, args);
        return {{"output", output}};
      }
      // One after the other, on devices that do not fuse them.
      check_mlp(table, args);
      const auto normed = norm.weight != nullptr ? new_tensor(device, input->shape, input->dtype) : input;
      const auto hidden = new_tensor(device, {rows, intermediate}, input->dtype);
      if (norm.weight != nullptr)
        layer_norm(table, context, {args.input, norm.weight, norm.bias, norm.epsilon, matrix(*normed)});
      linear(table, context, {matrix(*normed), args.fc1, args.fc1_bias, Activation::kGeluTanh, {}, matrix(*hidden)});
      linear(table, context, {matrix(*hidden), args.fc2, args.fc2_bias, Activation::kNone, args.residual, args.output});
      return {{"output", output}};
    });
  });
}

// layerNorm({ input [rows, width], weight [width], bias [width], epsilon, dtype? }): output
Napi::Value run_layer_norm(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    KernelArguments arguments(info);
    const auto input = arguments.activation("input", 2);
    const auto weight = arguments.tensor_of_shape("weight", {input->shape[1]});
    const auto bias = arguments.tensor_of_shape("bias", {input->shape[1]});
    const auto epsilon = static_cast<float>(to_number(arguments.get("epsilon"), "epsilon"));
    const DType type = arguments.result_type(input->dtype);
    return submit(info, arguments, [=](Device& device, OpContext& context) -> Outputs {
      const auto output = new_tensor(device, input->shape, type);
      layer_norm(device.table(), context, {matrix(*input), floats(weight), floats(bias), epsilon, matrix(*output)});
      return {{"output", output}};
    });
  });
}

// gelu({ input [rows, columns] }), l2Normalize({ input [rows, columns], dtype? }): output
template <typename Args, void (*operation)(const OpTable&, OpContext&, const Args&)>
Napi::Value run_rowwise(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    KernelArguments arguments(info);
    const auto input = arguments.activation("input", 2);
    const DType type = arguments.result_type(input->dtype);
    return submit(info, arguments, [=](Device& device, OpContext& context) -> Outputs {
      const auto output = new_tensor(device, input->shape, type);
      operation(device.table(), context, {matrix(*input), matrix(*output)});
      return {{"output", output}};
    });
  });
}

// convert({ input of any shape, dtype }): output, the same values in another type
Napi::Value run_convert(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    KernelArguments arguments(info);
    const auto input = arguments.free_activation("input");
    const DType dtype = to_dtype(arguments.get("dtype"));
    return submit(info, arguments, [=](Device& device, OpContext& context) -> Outputs {
      const auto output = new_tensor(device, input->shape, dtype);
      convert(device.table(), context, {matrix(*input), matrix(*output)});
      return {{"output", output}};
    });
  });
}

// attention({ query [Σq, heads, headDim], key, value [Σk, heads, headDim], queryOffsets, keyOffsets, causal, scale,
// productDtype? }): output [Σq, heads, headDim], logSumExp [Σq, heads]
Napi::Value run_attention(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    KernelArguments arguments(info);
    const AttentionTensors tensors(arguments);
    const DType product_type = tensors.product_type(arguments);
    return submit(info, arguments, [=](Device& device, OpContext& context) -> Outputs {
      const Shape& shape = tensors.query->shape;
      const auto output = new_tensor(device, shape, tensors.activation_type(product_type));
      const auto log_sum_exp = new_tensor(device, {shape[0], shape[1]});
      attention(device.table(), context, {tensors.inputs(), matrix(*output), matrix(*log_sum_exp), product_type});
      return {{"output", output}, {"logSumExp", log_sum_exp}};
    });
  });
}

// mapPool({ tokens [Σ tokens, width], offsets, probeKeys [heads, width], valueWeight [width, width],
// valueBias [width] }): output [sequences, width]
Napi::Value run_map_pool(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    KernelArguments arguments(info);
    const auto tokens = arguments.activation("tokens", 2);
    const std::int64_t width = tokens->shape[1];
    const auto probe_keys = arguments.tensor("probeKeys", 2);
    const auto value_weight = arguments.tensor_of_shape("valueWeight", {width, width});
    const auto value_bias = arguments.tensor_of_shape("valueBias", {width});
    auto offsets = to_int32s(arguments.get("offsets"), "offsets");
    if (offsets.empty()) throw Error(kErrorShape, "offsets: expected at least one entry");
    if (probe_keys->shape[1] != width)
      throw Error(kErrorShape, "probeKeys: expected shape [heads, " + std::to_string(width) + "], got " +
                                   describe(probe_keys->shape));
    return submit(info, arguments, [=](Device& device, OpContext& context) -> Outputs {
      const auto sequences = static_cast<std::int64_t>(offsets.size()) - 1;
      const auto output = new_tensor(device, {sequences, width}, tokens->dtype);
      map_pool(device.table(), context,
               {matrix(*tokens), offsets.data(), sequences, static_cast<int>(probe_keys->shape[0]), floats(probe_keys),
                floats(value_weight), floats(value_bias), matrix(*output)});
      return {{"output", output}};
    });
  });
}

// positionEmbedding({ table [rows, columns, width], spatialShapes, dtype? }): output [Σ rows·columns, width], the
// resized table
Napi::Value run_position_embedding(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    KernelArguments arguments(info);
    const auto table = arguments.tensor("table", 3);
    auto shapes = to_int32s(arguments.get("spatialShapes"), "spatialShapes");
    if (shapes.size() % 2 != 0) throw Error(kErrorShape, "spatialShapes: expected rows and columns for every image");
    std::int64_t tokens = 0;
    for (std::size_t i = 0; i < shapes.size(); i += 2) {
      if (shapes[i] < 1 || shapes[i + 1] < 1)
        throw Error(kErrorShape, "spatialShapes: every grid needs at least one row and one column");
      tokens += static_cast<std::int64_t>(shapes[i]) * shapes[i + 1];
      if (tokens > 2147483647) throw Error(kErrorShape, "spatialShapes: expected at most 2147483647 tokens in all");
    }
    const DType type = arguments.result_type(DType::kFloat32);
    return submit(info, arguments, [=](Device& device, OpContext& context) -> Outputs {
      const auto output = new_tensor(device, {tokens, table->shape[2]}, type);
      device.table().fill_zero(context, output->buffer.data(), output->buffer.bytes());
      position_embedding(device.table(), context,
                         {floats(table), table->shape[0], table->shape[1], shapes.data(),
                          static_cast<std::int64_t>(shapes.size() / 2), matrix(*output)});
      return {{"output", output}};
    });
  });
}

// tokenEmbedding({ ids Int32Array, length, table [vocabulary, width] float32 | float16 | bfloat16,
// positions [length, width], dtype? }): output [ids, width]
Napi::Value run_token_embedding(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    KernelArguments arguments(info);
    const auto table = arguments.stored("table", 2);
    const std::int64_t length = to_integer(arguments.get("length"), "length");
    const auto positions = arguments.tensor_of_shape("positions", {length, table->shape[1]});
    auto ids = to_int32s(arguments.get("ids"), "ids");
    const DType type = arguments.result_type(DType::kFloat32);
    return submit(info, arguments, [=](Device& device, OpContext& context) -> Outputs {
      const auto output = new_tensor(device, {static_cast<std::int64_t>(ids.size()), table->shape[1]}, type);
      token_embedding(device.table(), context,
                      {ids.data(), length, matrix(*table), floats(positions), matrix(*output)});
      return {{"output", output}};
    });
  });
}

// naflexPatchify({ images, targetSizes, mean, deviation, rescale, mode, filter, patchSize, dtype, device }):
// patches [Σ patches, 3·patchSize²]
Napi::Value run_patchify(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    KernelArguments arguments(info);
    arguments.set_device(find_device(to_string(arguments.get("device"), "device")));
    auto decoded =
        std::make_shared<DecodedImages>(to_decoded_images(to_object(info[0], "arguments"), &arguments.device()));
    const std::int64_t patch = to_integer(arguments.get("patchSize"), "patchSize", 1, 4096);
    const DType type = arguments.result_type(DType::kFloat32);
    return submit(info, arguments, [=](Device& device, OpContext& context) -> Outputs {
      PatchifyImagesArgs args = decoded->processing;
      args.images = decoded->images.data();
      args.count = static_cast<std::int64_t>(decoded->images.size());
      args.target_sizes = decoded->target_sizes.data();
      args.patch_size = static_cast<int>(patch);
      std::int64_t patches = 0;
      for (std::size_t i = 0; i < decoded->target_sizes.size(); i += 2)
        patches += (decoded->target_sizes[i] / patch) * (decoded->target_sizes[i + 1] / patch);
      const auto output = new_tensor(device, {patches, 3 * patch * patch}, type);
      args.output = matrix(*output);
      patchify_images(device.table(), context, args);
      return {{"patches", output}};
    });
  });
}

// arithmeticRoof({ dtype, turns, threads }): see cpu/arithmetic_roof.h, and the milliseconds it took
Napi::Value run_arithmetic_roof(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    KernelArguments arguments(info);
    const DType type = to_compute_dtype(arguments.get("dtype"));
    const std::int64_t turns = to_integer(arguments.get("turns"), "turns", 1, std::int64_t{1} << 28);
    const int threads = arguments.threads();
    Executor& executor = find_device("cpu").executor();
    return Environment::of(info.Env()).submit(info.Env(), executor, nullptr, [=]() -> Finish {
      const auto began = std::chrono::steady_clock::now();
      const cpu::ArithmeticRoof roof = cpu::run_arithmetic_roof(type, turns, threads);
      const std::chrono::duration<double, std::milli> elapsed = std::chrono::steady_clock::now() - began;
      return [=](Napi::Env env) -> Napi::Value {
        Napi::Object object = Napi::Object::New(env);
        object.Set("instruction", roof.instruction);
        object.Set("operations", roof.operations);
        object.Set("milliseconds", elapsed.count());
        return object;
      };
    });
  });
}

}  // namespace

void add_kernel_functions(Napi::Env env, Napi::Object exports) {
  const auto add = [&](const char* name, Napi::Value (*function)(const Napi::CallbackInfo&)) {
    exports.Set(name, Napi::Function::New(env, function, name));
  };
  add("linear", run_linear);
  add("mlp", run_mlp);
  add("layerNorm", run_layer_norm);
  add("gelu", run_rowwise<GeluArgs, siglip2::gelu>);
  add("l2Normalize", run_rowwise<L2NormalizeArgs, siglip2::l2_normalize>);
  add("convert", run_convert);
  add("attention", run_attention);
  add("mapPool", run_map_pool);
  add("positionEmbedding", run_position_embedding);
  add("tokenEmbedding", run_token_embedding);
  add("naflexPatchify", run_patchify);
  add("arithmeticRoof", run_arithmetic_roof);
}

}  // namespace siglip2::addon
