// Training: a trainer's life, its steps, and reading what it holds.
#include "addon/handles.h"
#include "addon/loss_arguments.h"
#include "addon/model_arguments.h"
#include "addon/promise_task.h"
#include "tensor/convert.h"

namespace siglip2::addon {
namespace {

std::vector<ParameterSetting> to_settings(const Napi::Value& value) {
  const Napi::Array array = to_array(value, "parameters");
  std::vector<ParameterSetting> settings;
  for (std::uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Object object = to_object(array.Get(i), "parameters");
    ParameterSetting setting;
    setting.name = to_string(object.Get("name"), "name");
    setting.shape = to_shape(object.Get("shape"), "shape");
    setting.trainable = to_boolean(object.Get("trainable"), "trainable");
    setting.learning_rate_scale = to_number(object.Get("learningRateScale"), "learningRateScale");
    setting.decay_scale = to_number(object.Get("decayScale"), "decayScale");
    const Napi::Object initialization = to_object(object.Get("initialization"), "initialization");
    if (initialization.Has("values")) {
      setting.initial_values = to_floats(initialization.Get("values"), "values");
      if (static_cast<std::int64_t>(setting.initial_values.size()) != count_elements(setting.shape))
        throw Error(kErrorShape, setting.name +
                                     ": expected as many initial values as the parameter has elements, got " +
                                     std::to_string(setting.initial_values.size()));
    } else {
      setting.initialization = to_initialization(initialization.Get("kind"), initialization.Get("scale"));
    }
    settings.push_back(std::move(setting));
  }
  return settings;
}

// createTrainer({ device, dtype, threads, vision, text, parameters, seed, average, checkpoint?, trainingState }, token)
Napi::Value create_trainer(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const Napi::Object options = to_object(info[0], "options");
    const auto cancel = from_handle<CancelToken>(info[1], "token");
    auto handle = std::make_shared<TrainerHandle>();
    handle->device = &find_device(to_string(options.Get("device"), "device"));
    handle->threads = to_threads(options.Get("threads"));
    handle->vision = to_vision_config(to_object(options.Get("vision"), "vision"));
    const TextConfig text = to_text_config(to_object(options.Get("text"), "text"));
    std::vector<ParameterSetting> settings = to_settings(options.Get("parameters"));
    ParameterSource source;
    source.seed = static_cast<std::uint64_t>(to_integer(options.Get("seed"), "seed", 0, std::int64_t{1} << 53));
    if (!options.Get("checkpoint").IsUndefined())
      source.checkpoint = from_handle<Checkpoint>(options.Get("checkpoint"), "checkpoint");
    source.training_state = to_boolean(options.Get("trainingState"), "trainingState");
    if (source.training_state && !source.checkpoint)
      throw Error(kErrorCheckpoint, "a training state must come from a checkpoint");
    const DType type = to_dtype(options.Get("dtype"));
    const bool average = to_boolean(options.Get("average"), "average");

    return Environment::of(info.Env())
        .submit(info.Env(), handle->device->executor(), cancel,
                [handle, text, settings = std::move(settings), source, type, average, cancel]() -> Finish {
                  auto store = std::make_shared<ParameterStore>(*handle->device, type, settings, source, average,
                                                                handle->threads, cancel);
                  handle->trainer =
                      std::make_unique<Trainer>(*handle->device, handle->vision, text, store, handle->threads);
                  const ParameterStore::Bytes memory = store->memory(0);
                  const auto bytes =
                      static_cast<std::int64_t>(memory.values + memory.gradients + memory.optimizer + memory.packed);
                  return [handle, bytes](Napi::Env env) { return make_handle(env, handle, bytes); };
                });
  });
}

// trainerModel(trainer): a model that computes with the trainer's weights as they are at any time.
Napi::Value trainer_model(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const auto handle = from_handle<TrainerHandle>(info[0], "trainer");
    auto model = std::make_shared<Model>();
    model->device = handle->device;
    model->threads = handle->threads;
    model->vision = handle->trainer->vision();
    model->text = handle->trainer->text();
    return make_handle(info.Env(), model);
  });
}

// { images: a vision input, inputIds, length, positives? }
std::shared_ptr<TrainingBatch> to_batch(const Napi::Value& value, const VisionConfig& config) {
  const Napi::Object object = to_object(value, "batch");
  auto batch = std::make_shared<TrainingBatch>();
  batch->images = to_vision_input(to_object(object.Get("images"), "images"), config);
  batch->ids = to_int32s(object.Get("inputIds"), "inputIds");
  batch->length = to_integer(object.Get("length"), "length");
  batch->positives = to_positives(object.Get("positives"));
  return batch;
}

// { microBatch, checkpointing }
GradientPlan to_plan(const Napi::Value& value) {
  const Napi::Object object = to_object(value, "plan");
  return {to_integer(object.Get("microBatch"), "microBatch", 0, std::int64_t{1} << 31),
          to_boolean(object.Get("checkpointing"), "checkpointing")};
}

Napi::Object to_javascript(Napi::Env env, const GradientResult& result) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("loss", result.loss);
  object.Set("gradientNorm", result.gradient_norm);
  object.Set("activationBytes", static_cast<double>(result.activation_bytes));
  return object;
}

// trainerGradients(trainer, batch, plan, token): { loss, gradientNorm, activationBytes }
Napi::Value trainer_gradients(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const auto handle = from_handle<TrainerHandle>(info[0], "trainer");
    const auto batch = to_batch(info[1], handle->vision);
    const GradientPlan plan = to_plan(info[2]);
    const auto cancel = from_handle<CancelToken>(info[3], "token");
    return Environment::of(info.Env()).submit(info.Env(), handle->device->executor(), cancel, [=]() -> Finish {
      const GradientResult result = handle->trainer->gradients(*batch, plan, *cancel);
      return [result](Napi::Env env) -> Napi::Value { return to_javascript(env, result); };
    });
  });
}

// { updates, beta1, beta2, epsilon, learningRate, decay, averageDecay, clipNorm }
UpdateRequest to_update(const Napi::Value& value) {
  const Napi::Object object = to_object(value, "update");
  UpdateRequest update;
  update.optimizer.updates = to_integer(object.Get("updates"), "updates", 1, std::int64_t{1} << 53);
  update.optimizer.beta1 = to_number(object.Get("beta1"), "beta1");
  update.optimizer.beta2 = to_number(object.Get("beta2"), "beta2");
  update.optimizer.epsilon = to_number(object.Get("epsilon"), "epsilon");
  update.optimizer.learning_rate = to_number(object.Get("learningRate"), "learningRate");
  update.optimizer.decay = to_number(object.Get("decay"), "decay");
  update.optimizer.average_decay = to_number(object.Get("averageDecay"), "averageDecay");
  update.clip_norm = to_number(object.Get("clipNorm"), "clipNorm");
  return update;
}

// trainerStep(trainer, batch, plan, update, token): the gradients' result and { updated, logitScale, logitBias }
Napi::Value trainer_step(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const auto handle = from_handle<TrainerHandle>(info[0], "trainer");
    const auto batch = to_batch(info[1], handle->vision);
    const GradientPlan plan = to_plan(info[2]);
    const UpdateRequest update = to_update(info[3]);
    const auto cancel = from_handle<CancelToken>(info[4], "token");
    return Environment::of(info.Env()).submit(info.Env(), handle->device->executor(), cancel, [=]() -> Finish {
      const StepResult result = handle->trainer->step(*batch, plan, update, *cancel);
      return [result](Napi::Env env) -> Napi::Value {
        Napi::Object object = to_javascript(env, result.gradients);
        object.Set("updated", result.updated);
        object.Set("logitScale", result.logit_scale);
        object.Set("logitBias", result.logit_bias);
        return object;
      };
    });
  });
}

// trainerPlan(trainer, { spatialShapes, texts, length }, plan): bytes by purpose. Nothing is computed. `texts` may be
// other than the images' number, as in batches with lists of positives.
Napi::Value trainer_plan(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const auto handle = from_handle<TrainerHandle>(info[0], "trainer");
    const Napi::Object object = to_object(info[1], "batch");
    auto batch = std::make_shared<TrainingBatch>();
    PackedPatches patches;
    patches.spatial_shapes = to_int32s(object.Get("spatialShapes"), "spatialShapes");
    if (patches.spatial_shapes.size() % 2 != 0)
      throw Error(kErrorShape, "spatialShapes: expected rows and columns for every image");
    batch->images = std::move(patches);
    batch->length = to_integer(object.Get("length"), "length", 1, std::int64_t{1} << 20);
    const std::int64_t texts = to_integer(object.Get("texts"), "texts", 0, std::int64_t{1} << 24);
    const auto images = static_cast<std::int64_t>(std::get<PackedPatches>(batch->images).spatial_shapes.size() / 2);
    if (texts != images) batch->positives = one_image_for_each_text(images, texts);
    const GradientPlan plan = to_plan(info[2]);
    return Environment::of(info.Env()).submit(info.Env(), handle->device->executor(), nullptr, [=]() -> Finish {
      const std::int64_t tokens = texts * batch->length;
      require_host_memory(static_cast<std::size_t>(tokens) * sizeof(std::int32_t));
      batch->ids.resize(static_cast<std::size_t>(tokens));
      const std::size_t activations = handle->trainer->plan(*batch, plan);
      const ParameterStore::Bytes memory = handle->trainer->store().memory(tokens);
      return [activations, memory](Napi::Env env) -> Napi::Value {
        Napi::Object result = Napi::Object::New(env);
        result.Set("parameterBytes", static_cast<double>(memory.values));
        result.Set("gradientBytes", static_cast<double>(memory.gradients));
        result.Set("optimizerBytes", static_cast<double>(memory.optimizer));
        result.Set("packedBytes", static_cast<double>(memory.packed));
        result.Set("activationBytes", static_cast<double>(activations));
        return result;
      };
    });
  });
}

ParameterPart to_part(const Napi::Value& value) {
  const std::string part = to_string(value, "part");
  if (part == "value") return ParameterPart::kValue;
  if (part == "gradient") return ParameterPart::kGradient;
  if (part == "firstMoment") return ParameterPart::kFirstMoment;
  if (part == "secondMoment") return ParameterPart::kSecondMoment;
  if (part == "average") return ParameterPart::kAverage;
  throw Napi::RangeError::New(value.Env(), "part: expected a part of a parameter, got \"" + part + "\"");
}

// readParameter(trainer, name, part, dtype): the bytes of its values in Hugging Face's layout, rounded to the dtype
Napi::Value read_parameter(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const auto handle = from_handle<TrainerHandle>(info[0], "trainer");
    const std::string name = to_string(info[1], "name");
    const ParameterPart part = to_part(info[2]);
    const DType dtype = to_stored_dtype(info[3]);
    return Environment::of(info.Env()).submit(info.Env(), handle->device->executor(), nullptr, [=]() -> Finish {
      ParameterStore& store = handle->trainer->store();
      const auto count = static_cast<std::size_t>(store.elements(name));
      require_host_memory(3 * count * sizeof(float));
      std::vector<float> values(count);
      store.read(name, part, values.data());
      auto bytes = std::make_shared<std::vector<std::uint8_t>>(count * size_of(dtype));
      narrow_from_float(dtype, values.data(), bytes->data(), count);
      return [bytes](Napi::Env env) -> Napi::Value { return from_bytes(env, *bytes); };
    });
  });
}

// touchedRows(trainer): Float32Array, 1 for each row of the token table that has ever had a gradient, else 0; empty
// when the table is frozen
Napi::Value touched_rows(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const auto handle = from_handle<TrainerHandle>(info[0], "trainer");
    return Environment::of(info.Env()).submit(info.Env(), handle->device->executor(), nullptr, [=]() -> Finish {
      const std::vector<std::uint8_t>& touched = handle->trainer->store().touched_rows();
      auto rows = std::make_shared<std::vector<float>>(touched.begin(), touched.end());
      return [rows](Napi::Env env) -> Napi::Value { return from_floats(env, *rows); };
    });
  });
}

}  // namespace

void add_trainer_functions(Napi::Env env, Napi::Object exports) {
  exports.Set("createTrainer", Napi::Function::New(env, create_trainer, "createTrainer"));
  exports.Set("trainerModel", Napi::Function::New(env, trainer_model, "trainerModel"));
  exports.Set("trainerGradients", Napi::Function::New(env, trainer_gradients, "trainerGradients"));
  exports.Set("trainerStep", Napi::Function::New(env, trainer_step, "trainerStep"));
  exports.Set("trainerPlan", Napi::Function::New(env, trainer_plan, "trainerPlan"));
  exports.Set("readParameter", Napi::Function::New(env, read_parameter, "readParameter"));
  exports.Set("touchedRows", Napi::Function::New(env, touched_rows, "touchedRows"));
}

}  // namespace siglip2::addon
