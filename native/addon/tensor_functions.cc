// Tensors of the kernel API: creating them from JavaScript data and reading them back.
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "addon/kernel_arguments.h"
#include "tensor/convert.h"
#include "tensor/shape_check.h"

namespace siglip2::addon {
namespace {

// createTensor(device, dtype, shape, data): data are the elements' bytes.
Napi::Value create_tensor(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    auto tensor = std::make_shared<Tensor>();
    tensor->device = &find_device(to_string(info[0], "device"));
    tensor->dtype = to_dtype(info[1]);
    tensor->shape = to_shape(info[2], "shape");
    const ByteView bytes = view_bytes(info[3], "data");
    const std::int64_t elements = count_elements(tensor->shape);
    for (const std::int64_t size : tensor->shape)
      if (elements < 0 || size > 2147483647) throw Error(kErrorShape, "shape: a size is out of range");
    if (elements * static_cast<std::int64_t>(size_of(tensor->dtype)) != static_cast<std::int64_t>(bytes.size))
      throw Error(kErrorShape, "data: its length does not fit the shape");
    Device& device = *tensor->device;
    const auto upload = [&] {
      tensor->buffer = DeviceBuffer(device, bytes.size);
      OpContext context = device.context();
      device.table().copy_to_device(context, tensor->buffer.data(), bytes.data, bytes.size);
    };
    device.table().host_memory ? upload() : device.executor().run_and_wait(upload);
    return make_handle(info.Env(), tensor, static_cast<std::int64_t>(bytes.size));
  });
}

// readTensorValues(tensor): its elements widened to float32, after everything that was queued before.
Napi::Value read_tensor_values(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const auto tensor = from_handle<Tensor>(info[0], "tensor");
    return Environment::of(info.Env()).submit(info.Env(), tensor->device->executor(), nullptr, [=]() -> Finish {
      const auto count = static_cast<std::size_t>(tensor->elements());
      std::vector<std::uint8_t> bytes(count * size_of(tensor->dtype));
      OpContext context = tensor->device->context();
      tensor->device->table().copy_to_host(context, bytes.data(), tensor->buffer.data(), bytes.size());
      auto values = std::make_shared<std::vector<float>>(count);
      if (tensor->dtype == DType::kInt32) {
        std::vector<std::int32_t> integers(count);
        if (count != 0) std::memcpy(integers.data(), bytes.data(), bytes.size());
        for (std::size_t i = 0; i < count; ++i)
          (*values)[i] = static_cast<float>(integers[i]);
      } else if (tensor->dtype == DType::kUInt8) {
        for (std::size_t i = 0; i < count; ++i)
          (*values)[i] = bytes[i];
      } else {
        widen_to_float(tensor->dtype, bytes.data(), values->data(), count);
      }
      return [values](Napi::Env env) -> Napi::Value { return from_floats(env, *values); };
    });
  });
}

}  // namespace

bool poisoning() {
  static const bool wanted = [] {
    const char* const value = std::getenv("SIGLIP2_POISON");
    return value != nullptr && std::string(value) == "1";
  }();
  return wanted;
}

void poison(Device& device, const DeviceBuffer& buffer) {
  const std::vector<std::uint8_t> ones(buffer.bytes(), 0xff);
  OpContext context = device.context();
  device.table().copy_to_device(context, buffer.data(), ones.data(), ones.size());
}

void add_tensor_functions(Napi::Env env, Napi::Object exports) {
  exports.Set("createTensor", Napi::Function::New(env, create_tensor, "createTensor"));
  exports.Set("readTensorValues", Napi::Function::New(env, read_tensor_values, "readTensorValues"));
}

}  // namespace siglip2::addon
