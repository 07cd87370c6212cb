// What an optimiser step is made of, as functions of tensors, in the manner of kernel_functions.cc: gradients of
// embedding tables, Adam, norms, initial values.
#include <algorithm>
#include <vector>

#include "addon/kernel_arguments.h"
#include "addon/model_arguments.h"
#include "ops/adam/adam.h"
#include "ops/position_embedding/position_embedding.h"
#include "ops/sum_of_squares/sum_of_squares.h"
#include "ops/token_embedding/token_embedding.h"
#include "train/initialize.h"

namespace siglip2::addon {
namespace {

constexpr std::int64_t kMostVocabulary = 16777216;    // as lib/model/config.ts has it
constexpr std::int64_t kMostPositions = 1048576;      // likewise
constexpr std::int64_t kMostInitialValues = 1 << 26;  // enough to look at a distribution

TensorPointer zeros(Device& device, OpContext& context, Shape shape) {
  TensorPointer tensor = new_tensor(device, std::move(shape));
  device.table().fill_zero(context, tensor->buffer.data(), tensor->buffer.bytes());
  return tensor;
}

// A copy, through the host: tables of operations copy to and from it only.
TensorPointer clone(Device& device, OpContext& context, const Tensor& source) {
  TensorPointer copy = new_tensor(device, source.shape);
  require_host_memory(source.buffer.bytes());
  std::vector<float> values(static_cast<std::size_t>(source.elements()));
  device.table().copy_to_host(context, values.data(), source.buffer.data(), source.buffer.bytes());
  device.table().copy_to_device(context, copy->buffer.data(), values.data(), source.buffer.bytes());
  return copy;
}

// tokenEmbeddingBackward({ ids Int32Array, gradOutput [ids, width], vocabularySize, length }):
// gradTable [vocabularySize, width], gradPositions [length, width]
Napi::Value run_token_embedding_backward(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    KernelArguments arguments(info);
    const auto grad_output = arguments.activation("gradOutput", 2);
    auto ids = to_int32s(arguments.get("ids"), "ids");
    const std::int64_t vocabulary = to_integer(arguments.get("vocabularySize"), "vocabularySize", 1, kMostVocabulary);
    const std::int64_t length = to_integer(arguments.get("length"), "length", 1, kMostPositions);
    if (static_cast<std::int64_t>(ids.size()) != grad_output->shape[0])
      throw Error(kErrorShape, "ids: expected one for every row of gradOutput");
    return submit(info, arguments, [=](Device& device, OpContext& context) -> Outputs {
      const std::int64_t width = grad_output->shape[1];
      const auto grad_table = zeros(device, context, {vocabulary, width});
      const auto grad_positions = zeros(device, context, {length, width});
      token_embedding_backward(device.table(), context,
                               {ids.data(), vocabulary, length, matrix(*grad_output), grad_table->buffer.as<float>(),
                                grad_positions->buffer.as<float>()});
      return {{"gradTable", grad_table}, {"gradPositions", grad_positions}};
    });
  });
}

// positionEmbeddingBackward({ gradTokens [Σ rows·columns, width], spatialShapes, tableShape [rows, columns] }):
// gradTable [rows, columns, width]
Napi::Value run_position_embedding_backward(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    KernelArguments arguments(info);
    const auto grad_tokens = arguments.activation("gradTokens", 2);
    auto shapes = to_int32s(arguments.get("spatialShapes"), "spatialShapes");
    const Shape table = to_shape(arguments.get("tableShape"), "tableShape");
    if (shapes.size() % 2 != 0) throw Error(kErrorShape, "spatialShapes: expected rows and columns for every image");
    if (table.size() != 2 || std::min(table[0], table[1]) < 1 || std::max(table[0], table[1]) > kMostPositions ||
        table[0] * table[1] > kMostPositions)
      throw Error(kErrorShape, "tableShape: expected rows and columns of at most " + std::to_string(kMostPositions) +
                                   " entries, got " + describe(table));
    return submit(info, arguments, [=](Device& device, OpContext& context) -> Outputs {
      const auto grad_table = zeros(device, context, {table[0], table[1], grad_tokens->shape[1]});
      position_embedding_backward(device.table(), context,
                                  {table[0], table[1], shapes.data(), static_cast<std::int64_t>(shapes.size() / 2),
                                   matrix(*grad_tokens), grad_table->buffer.as<float>()});
      return {{"gradTable", grad_table}};
    });
  });
}

// adam({ parameter, firstMoment, secondMoment, average? [rows, …], gradient [rows, …], or [slots, width] with
// gradientRows? Int32Array, step, beta1, beta2, epsilon, stepSize, decay, gradientScale, averageDecay }):
// parameter, firstMoment, secondMoment, average
Napi::Value run_adam(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    KernelArguments arguments(info);
    const auto shape = from_handle<Tensor>(arguments.get("parameter"), "parameter")->shape;
    const auto parameter = arguments.tensor_of_shape("parameter", shape);
    const auto first_moment = arguments.tensor_of_shape("firstMoment", shape);
    const auto second_moment = arguments.tensor_of_shape("secondMoment", shape);
    const auto average = arguments.optional_tensor("average", shape);
    const bool sparse = !arguments.get("gradientRows").IsUndefined();
    const auto gradient = sparse ? arguments.tensor("gradient", 2) : arguments.tensor_of_shape("gradient", shape);
    std::vector<std::int32_t> gradient_rows;
    if (sparse) gradient_rows = to_int32s(arguments.get("gradientRows"), "gradientRows");
    const MatrixView view = matrix(*parameter);
    if (sparse && static_cast<std::int64_t>(gradient_rows.size()) != view.rows)
      throw Error(kErrorShape, "gradientRows: expected one for every row of parameter");
    if (sparse && gradient->shape[1] != view.columns)
      throw Error(kErrorShape, "gradient: expected rows of " + std::to_string(view.columns));
    AdamArgs args;
    args.rows = view.columns == 0 ? 0 : view.rows;
    args.width = std::max<std::int64_t>(view.columns, 1);
    args.slots = sparse ? gradient->shape[0] : 0;
    args.step = to_integer(arguments.get("step"), "step");
    args.beta1 = to_number(arguments.get("beta1"), "beta1");
    args.beta2 = to_number(arguments.get("beta2"), "beta2");
    args.epsilon = to_number(arguments.get("epsilon"), "epsilon");
    args.step_size = to_number(arguments.get("stepSize"), "stepSize");
    args.decay = to_number(arguments.get("decay"), "decay");
    args.gradient_scale = to_number(arguments.get("gradientScale"), "gradientScale");
    args.average_decay = to_number(arguments.get("averageDecay"), "averageDecay");
    return submit(info, arguments, [=](Device& device, OpContext& context) -> Outputs {
      Outputs outputs;
      const auto updated = [&](const char* name, const TensorPointer& source) {
        outputs.emplace_back(name, clone(device, context, *source));
        return outputs.back().second->buffer.as<float>();
      };
      AdamArgs call = args;
      call.parameter = updated("parameter", parameter);
      call.first_moment = updated("firstMoment", first_moment);
      call.second_moment = updated("secondMoment", second_moment);
      if (average) call.average = updated("average", average);
      call.gradient = floats(gradient);
      if (sparse) call.gradient_rows = gradient_rows.data();
      adam(device.table(), context, call);
      return outputs;
    });
  });
}

// sumOfSquares({ values }): a number
Napi::Value run_sum_of_squares(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    KernelArguments arguments(info);
    const auto shape = from_handle<Tensor>(arguments.get("values"), "values")->shape;
    const auto values = arguments.tensor_of_shape("values", shape);
    Device& device = arguments.device();
    const int threads = arguments.threads();
    return Environment::of(info.Env()).submit(info.Env(), device.executor(), nullptr, [=, &device]() -> Finish {
      OpContext context = device.context(threads);
      double sum = 0;
      sum_of_squares(device.table(), context, {floats(values), values->elements(), &sum});
      return [sum](Napi::Env env) -> Napi::Value { return Napi::Number::New(env, sum); };
    });
  });
}

// initialize({ kind, scale, seed, stream, count, device }): values [count]
Napi::Value run_initialize(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    KernelArguments arguments(info);
    arguments.set_device(find_device(to_string(arguments.get("device"), "device")));
    const Initialization initialization = to_initialization(arguments.get("kind"), arguments.get("scale"));
    constexpr std::int64_t kMostSeed = 9007199254740991;
    const std::int64_t seed = to_integer(arguments.get("seed"), "seed", 0, kMostSeed);
    const std::int64_t stream = to_integer(arguments.get("stream"), "stream", 0, kMostSeed);
    const std::int64_t count = to_integer(arguments.get("count"), "count", 0, kMostInitialValues);
    return submit(info, arguments, [=](Device& device, OpContext& context) -> Outputs {
      const auto values = new_tensor(device, {count});
      std::vector<float> made(static_cast<std::size_t>(count));
      initialize(initialization, static_cast<std::uint64_t>(seed), static_cast<std::uint64_t>(stream), made.data(),
                 count, context.threads);
      device.table().copy_to_device(context, values->buffer.data(), made.data(), values->buffer.bytes());
      return {{"values", values}};
    });
  });
}

}  // namespace

void add_optimizer_functions(Napi::Env env, Napi::Object exports) {
  const auto add = [&](const char* name, Napi::Value (*function)(const Napi::CallbackInfo&)) {
    exports.Set(name, Napi::Function::New(env, function, name));
  };
  add("tokenEmbeddingBackward", run_token_embedding_backward);
  add("positionEmbeddingBackward", run_position_embedding_backward);
  add("adam", run_adam);
  add("sumOfSquares", run_sum_of_squares);
  add("initialize", run_initialize);
}

}  // namespace siglip2::addon
