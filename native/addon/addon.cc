// Entry point of the addon: what belongs to the process and the machine rather than to a model.
#include <napi.h>

#include "addon/handles.h"
#include "addon/promise_task.h"
#include "cpu/cpu_features.h"
#include "cpu/memory.h"
#include "cpu/thread_pool.h"

namespace siglip2::addon {
namespace {

// describe(): instruction sets, cores, memory and devices, for inspect().
Napi::Value describe(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const Napi::Env env = info.Env();
    Napi::Object result = Napi::Object::New(env);
    Napi::Array sets = Napi::Array::New(env);
    for (const cpu::InstructionSet& set : cpu::instruction_sets()) {
      Napi::Object entry = Napi::Object::New(env);
      entry.Set("name", set.name);
      entry.Set("compiled", set.compiled);
      entry.Set("supported", set.supported);
      sets.Set(sets.Length(), entry);
    }
    result.Set("instructionSets", sets);
    result.Set("instructionSet", cpu::chosen_instruction_set());
    result.Set("cores", cpu::available_cores());
    result.Set("availableMemory", static_cast<double>(cpu::available_memory()));
    Napi::Array devices = Napi::Array::New(env);
    for (const Device* device : all_devices()) {
      Napi::Object entry = Napi::Object::New(env);
      entry.Set("name", device->name());
      entry.Set("description", device->description());
      devices.Set(devices.Length(), entry);
    }
    result.Set("devices", devices);
    return result;
  });
}

Napi::Value create_cancel_token(const Napi::CallbackInfo& info) {
  return make_handle(info.Env(), std::make_shared<CancelToken>());
}

Napi::Value cancel(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    from_handle<CancelToken>(info[0], "token")->cancel();
    return info.Env().Undefined();
  });
}

// release(handle): gives up the object behind a handle; a second time it does nothing.
Napi::Value release(const Napi::CallbackInfo& info) {
  const auto reset = [&](auto* handle) {
    if (handle != nullptr) handle->reset(info.Env());
  };
  reset(find_handle<Checkpoint>(info[0]));
  reset(find_handle<Model>(info[0]));
  reset(find_handle<TrainerHandle>(info[0]));
  reset(find_handle<Tensor>(info[0]));
  return info.Env().Undefined();
}

Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  Environment::create(env);
  exports.Set("describe", Napi::Function::New(env, describe, "describe"));
  exports.Set("createCancelToken", Napi::Function::New(env, create_cancel_token, "createCancelToken"));
  exports.Set("cancel", Napi::Function::New(env, cancel, "cancel"));
  exports.Set("release", Napi::Function::New(env, release, "release"));
  add_checkpoint_functions(env, exports);
  add_model_functions(env, exports);
  add_tensor_functions(env, exports);
  add_trainer_functions(env, exports);
  add_kernel_functions(env, exports);
  add_loss_functions(env, exports);
  add_layer_backward_functions(env, exports);
  add_attention_backward_functions(env, exports);
  add_optimizer_functions(env, exports);
  return exports;
}

}  // namespace
}  // namespace siglip2::addon

static Napi::Object Init(Napi::Env env, Napi::Object exports) {
  return siglip2::addon::initialize(env, exports);
}
NODE_API_MODULE(siglip2, Init)
