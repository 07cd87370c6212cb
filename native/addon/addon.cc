// Entry point of the addon: what belongs to the process and the machine rather than to a model.
#include <napi.h>

#include "addon/handles.h"
#include "addon/promise_task.h"
#include "backend/device_libraries.h"
#include "cpu/cpu_features.h"
#include "cpu/memory.h"
#include "cpu/thread_pool.h"

namespace siglip2::addon {
namespace {

Napi::Object to_javascript(Napi::Env env, const DeviceFacts& facts) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("name", facts.name);
  object.Set("architecture", facts.architecture);
  object.Set("memoryBytes", static_cast<double>(facts.memory_bytes));
  object.Set("freeBytes", static_cast<double>(facts.free_bytes));
  object.Set("multiprocessors", facts.multiprocessors);
  object.Set("driverVersion", facts.driver_version);
  object.Set("notice", facts.notice);
  return object;
}

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
    for (const DeviceListing& device : list_devices()) {
      Napi::Object entry = Napi::Object::New(env);
      entry.Set("name", device.name);
      entry.Set("description", device.description);
      if (device.facts) entry.Set("facts", to_javascript(env, *device.facts));
      devices.Set(devices.Length(), entry);
    }
    result.Set("devices", devices);
    // Why there is no CUDA device; absent when there is one.
    if (cuda_library().devices == 0) result.Set("noCuda", cuda_library().reason);
    return result;
  });
}

// openDevice(name): the device's own name ("cuda" for "cuda:0"). ERR_SIGLIP_NO_DEVICE when it cannot be used.
Napi::Value open_device(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    return Napi::String::New(info.Env(), find_device(to_string(info[0], "device")).name());
  });
}

// simtControl(command): the emulated device's answer; see native/simt/.
Napi::Value simt_control(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const std::string command = to_string(info[0], "command");
    Device& device = find_device("simt");
    const auto control = simt_library().library->control;
    if (control == nullptr) throw Error(kErrorUnsupported, "the emulated device takes no commands");
    std::string answer;
    device.executor().run_and_wait([&] { answer = control(command.c_str()); });
    return Napi::String::New(info.Env(), answer);
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
  exports.Set("openDevice", Napi::Function::New(env, open_device, "openDevice"));
  exports.Set("simtControl", Napi::Function::New(env, simt_control, "simtControl"));
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
  add_self_attention_functions(env, exports);
  add_optimizer_functions(env, exports);
  return exports;
}

}  // namespace
}  // namespace siglip2::addon

static Napi::Object Init(Napi::Env env, Napi::Object exports) {
  return siglip2::addon::initialize(env, exports);
}
NODE_API_MODULE(siglip2, Init)
