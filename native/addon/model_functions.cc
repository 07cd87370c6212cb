// Models: loading towers, running them, comparing embeddings, preparing images for a model.
#include <optional>

#include "addon/handles.h"
#include "addon/image_arguments.h"
#include "addon/model_arguments.h"
#include "addon/promise_task.h"
#include "nn/similarity.h"

namespace siglip2::addon {
namespace {

// loadModel(checkpoint, { device, dtype, threads, vision?, text?, packedFolder }, token)
Napi::Value load_model(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const std::shared_ptr<const Checkpoint> checkpoint = from_handle<Checkpoint>(info[0], "checkpoint");
    const Napi::Object options = to_object(info[1], "options");
    const auto cancel = from_handle<CancelToken>(info[2], "token");
    auto model = std::make_shared<Model>();
    model->device = &find_device(to_string(options.Get("device"), "device"));
    model->threads = to_threads(options.Get("threads"));
    const DType type = to_compute_dtype(options.Get("dtype"));
    std::optional<VisionConfig> vision;
    std::optional<TextConfig> text;
    const std::string packed_folder = to_string(options.Get("packedFolder"), "packedFolder");
    if (!options.Get("vision").IsUndefined()) vision = to_vision_config(to_object(options.Get("vision"), "vision"));
    if (!options.Get("text").IsUndefined()) text = to_text_config(to_object(options.Get("text"), "text"));

    return Environment::of(info.Env()).submit(info.Env(), model->device->executor(), cancel, [=]() -> Finish {
      Device& device = *model->device;
      const int threads = model->threads;
      if (vision) model->vision = share_vision_tower(*vision, device, type, checkpoint, threads, cancel, packed_folder);
      if (text) model->text = share_text_tower(*text, device, type, checkpoint, threads, cancel, packed_folder);
      return [model](Napi::Env env) { return make_handle(env, model); };
    });
  });
}

Napi::Array from_states(Napi::Env env, const std::vector<std::vector<float>>& states) {
  Napi::Array array = Napi::Array::New(env, states.size());
  for (std::uint32_t i = 0; i < states.size(); ++i)
    array.Set(i, from_floats(env, states[i]));
  return array;
}

template <typename Result>
void set_common_results(Napi::Object object, const Result& result) {
  const Napi::Env env = object.Env();
  object.Set("pooled", from_floats(env, result.pooled));
  object.Set("lastHiddenState", from_floats(env, result.last_hidden_state));
  object.Set("hiddenStates", from_states(env, result.hidden_states));
  object.Set("activationBytes", static_cast<double>(result.activation_bytes));
}

// visionForward(model, input, { pooled, normalize, lastHiddenState, hiddenStates, layer }, token)
Napi::Value vision_forward(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const auto model = from_handle<Model>(info[0], "model");
    if (!model->vision) throw Error(kErrorUnsupported, "the vision tower was not loaded (see the towers option)");
    auto input = std::make_shared<VisionInput>(to_vision_input(to_object(info[1], "input"), model->vision->config()));
    const Napi::Object options = to_object(info[2], "options");
    VisionRequest request;
    request.pooled = to_boolean(options.Get("pooled"), "pooled");
    request.normalize = to_boolean(options.Get("normalize"), "normalize");
    request.last_hidden_state = to_boolean(options.Get("lastHiddenState"), "lastHiddenState");
    request.hidden_states = to_boolean(options.Get("hiddenStates"), "hiddenStates");
    request.layer =
        static_cast<int>(to_integer(options.Get("layer"), "layer", -1, model->vision->config().encoder.layers));
    const auto cancel = from_handle<CancelToken>(info[3], "token");
    return Environment::of(info.Env()).submit(info.Env(), model->device->executor(), cancel, [=]() -> Finish {
      auto result = std::make_shared<VisionResult>(
          model->vision->forward(*model->device, *input, request, model->threads, *cancel));
      return [result](Napi::Env env) -> Napi::Value {
        Napi::Object object = Napi::Object::New(env);
        set_common_results(object, *result);
        object.Set("spatialShapes", from_int32s(env, result->spatial_shapes));
        return object;
      };
    });
  });
}

// textForward(model, ids, length, { pooled, normalize, lastHiddenState, hiddenStates }, token)
Napi::Value text_forward(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const auto model = from_handle<Model>(info[0], "model");
    if (!model->text) throw Error(kErrorUnsupported, "the text tower was not loaded (see the towers option)");
    auto ids = std::make_shared<std::vector<std::int32_t>>(to_int32s(info[1], "inputIds"));
    const std::int64_t length = to_integer(info[2], "length");
    const Napi::Object options = to_object(info[3], "options");
    TextRequest request;
    request.pooled = to_boolean(options.Get("pooled"), "pooled");
    request.normalize = to_boolean(options.Get("normalize"), "normalize");
    request.last_hidden_state = to_boolean(options.Get("lastHiddenState"), "lastHiddenState");
    request.hidden_states = to_boolean(options.Get("hiddenStates"), "hiddenStates");
    const auto cancel = from_handle<CancelToken>(info[4], "token");
    return Environment::of(info.Env()).submit(info.Env(), model->device->executor(), cancel, [=]() -> Finish {
      auto result = std::make_shared<TextResult>(
          model->text->forward(*model->device, *ids, length, request, model->threads, *cancel));
      return [result](Napi::Env env) -> Napi::Value {
        Napi::Object object = Napi::Object::New(env);
        set_common_results(object, *result);
        return object;
      };
    });
  });
}

// describeModel(model): bytes of packed weights on the device.
Napi::Value describe_model(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const auto model = from_handle<Model>(info[0], "model");
    Napi::Object object = Napi::Object::New(info.Env());
    object.Set("visionWeightBytes", static_cast<double>(model->vision ? model->vision->weight_bytes() : 0));
    object.Set("textWeightBytes", static_cast<double>(model->text ? model->text->weight_bytes() : 0));
    object.Set("threads", model->threads);
    return object;
  });
}

// similarity(images, texts, width, logitScale, logitBias): { logits, probabilities }
Napi::Value compare(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const Napi::Env env = info.Env();
    const std::vector<float> images = to_floats(info[0], "images");
    const std::vector<float> texts = to_floats(info[1], "texts");
    const std::int64_t width = to_integer(info[2], "width");
    if (width < 1 || images.size() % static_cast<std::size_t>(width) != 0 ||
        texts.size() % static_cast<std::size_t>(width) != 0)
      throw Error(kErrorShape, "similarity: the data does not fit the width");
    const auto image_count = static_cast<std::int64_t>(images.size()) / width;
    const auto text_count = static_cast<std::int64_t>(texts.size()) / width;
    const std::size_t pairs = static_cast<std::size_t>(image_count) * static_cast<std::size_t>(text_count);
    auto logits = new_floats(env, pairs);
    auto probabilities = new_floats(env, pairs);
    similarity(images.data(), image_count, texts.data(), text_count, width, to_number(info[3], "logitScale"),
               to_number(info[4], "logitBias"), logits.Data(), probabilities.Data());
    Napi::Object result = Napi::Object::New(env);
    result.Set("logits", logits);
    result.Set("probabilities", probabilities);
    return result;
  });
}

// prepareImages(images, { device, threads, patchSize, layout }, token): resized and normalised values.
Napi::Value prepare_images(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    auto decoded = std::make_shared<DecodedImages>(to_decoded_images(to_object(info[0], "images")));
    const Napi::Object options = to_object(info[1], "options");
    Device& device = find_device(to_string(options.Get("device"), "device"));
    const int threads = to_threads(options.Get("threads"));
    const std::int64_t patch = to_integer(options.Get("patchSize"), "patchSize", 1, kMostPatchSize);
    const bool planar = to_string(options.Get("layout"), "layout") == "planar";
    const auto cancel = from_handle<CancelToken>(info[2], "token");
    return Environment::of(info.Env()).submit(info.Env(), device.executor(), cancel, [=, &device]() -> Finish {
      auto values = std::make_shared<std::vector<float>>();
      PatchifyImagesArgs args = decoded->processing;
      args.images = decoded->images.data();
      args.count = static_cast<std::int64_t>(decoded->images.size());
      args.target_sizes = decoded->target_sizes.data();
      args.patch_size = static_cast<int>(patch);
      args.layout = planar ? PixelLayout::kPlanar : PixelLayout::kPatches;
      std::int64_t rows = planar ? args.count : 0;
      std::int64_t columns = 3 * patch * patch;
      for (std::int64_t i = 0; i < args.count; ++i) {
        const std::int64_t height = args.target_sizes[2 * i];
        const std::int64_t width = args.target_sizes[2 * i + 1];
        if (planar)
          columns = 3 * height * width;
        else
          rows += (height / patch) * (width / patch);
      }
      Pass::run(device, DType::kFloat32, threads, *cancel, [&](Pass& pass) {
        const Arena::Scope scope = pass.scope();
        args.output = pass.allocate(rows, columns);
        pass.patchify_images(args);
        if (!pass.planning()) values->resize(static_cast<std::size_t>(rows * columns));
        pass.copy_to_host(values->data(), args.output);
      });
      return [values](Napi::Env env) -> Napi::Value { return from_floats(env, *values); };
    });
  });
}

// naflexTargetSize(height, width, patchSize, maxPatches): [height, width]
Napi::Value target_size(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const TargetSize size = naflex_target_size(to_integer(info[0], "height"), to_integer(info[1], "width"),
                                               static_cast<int>(to_integer(info[2], "patchSize", 1, kMostPatchSize)),
                                               to_integer(info[3], "maxPatches"));
    Napi::Array result = Napi::Array::New(info.Env(), 2);
    result.Set(0u, size.height);
    result.Set(1u, size.width);
    return result;
  });
}

}  // namespace

void add_model_functions(Napi::Env env, Napi::Object exports) {
  exports.Set("loadModel", Napi::Function::New(env, load_model, "loadModel"));
  exports.Set("describeModel", Napi::Function::New(env, describe_model, "describeModel"));
  exports.Set("visionForward", Napi::Function::New(env, vision_forward, "visionForward"));
  exports.Set("textForward", Napi::Function::New(env, text_forward, "textForward"));
  exports.Set("similarity", Napi::Function::New(env, compare, "similarity"));
  exports.Set("prepareImages", Napi::Function::New(env, prepare_images, "prepareImages"));
  exports.Set("naflexTargetSize", Napi::Function::New(env, target_size, "naflexTargetSize"));
}

}  // namespace siglip2::addon
