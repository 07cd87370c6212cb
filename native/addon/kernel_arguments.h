// What the functions of kernels share: reading tensors from named arguments, making result tensors, queueing.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "addon/handles.h"
#include "addon/promise_task.h"
#include "addon/timed_runs.h"
#include "ops/linear/linear.h"

namespace siglip2::addon {

using TensorPointer = std::shared_ptr<Tensor>;
using Shape = std::vector<std::int64_t>;

inline std::string describe(const Shape& shape) {
  std::string text = "[";
  for (const std::int64_t size : shape)
    text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + "]";
}

// The named arguments of one kernel call: tensors of one device, and how many threads to use.
class KernelArguments {
 public:
  explicit KernelArguments(const Napi::CallbackInfo& info) : object_(to_object(info[0], "arguments")) {
    threads_ = to_threads(object_.Get("threads"));
  }

  // A tensor of the given rank and type; all tensors of a call must be on one device.
  TensorPointer tensor(const char* name, std::size_t rank, DType dtype = DType::kFloat32) {
    TensorPointer found = from_handle<Tensor>(object_.Get(name), name);
    if (found->shape.size() != rank)
      throw Error(kErrorShape, std::string(name) + ": expected " + std::to_string(rank) + " dimensions, got shape " +
                                   describe(found->shape));
    if (found->dtype != dtype)
      throw Error(kErrorUnsupported,
                  std::string(name) + ": expected " + name_of(dtype) + ", got " + name_of(found->dtype));
    if (device_ != nullptr && device_ != found->device)
      throw Error(kErrorShape,
                  std::string(name) + ": is on device " + found->device->name() + ", the others on " + device_->name());
    device_ = found->device;
    return found;
  }
  // A tensor that may have any type which parameters are stored in.
  TensorPointer stored(const char* name, std::size_t rank) {
    const DType dtype = from_handle<Tensor>(object_.Get(name), name)->dtype;
    return tensor(name, rank, dtype == DType::kFloat16 || dtype == DType::kBFloat16 ? dtype : DType::kFloat32);
  }
  // A tensor of a type that activations may have on some device, whatever others have.
  TensorPointer free_activation(const char* name, std::size_t rank) {
    const DType dtype = from_handle<Tensor>(object_.Get(name), name)->dtype;
    return tensor(name, rank, dtype == DType::kBFloat16 ? dtype : DType::kFloat32);
  }
  // The same in any shape of at least one dimension.
  TensorPointer free_activation(const char* name) {
    const std::size_t rank = from_handle<Tensor>(object_.Get(name), name)->shape.size();
    return free_activation(name, rank == 0 ? 1 : rank);
  }
  // The same, with one type for all activations of the call.
  TensorPointer activation(const char* name, std::size_t rank) {
    TensorPointer found = activation_type_ ? tensor(name, rank, *activation_type_) : free_activation(name, rank);
    activation_type_ = found->dtype;
    return found;
  }
  // The same with every size given.
  TensorPointer tensor_of_shape(const char* name, const Shape& shape) {
    return require_shape(name, tensor(name, shape.size()), shape);
  }
  TensorPointer free_activation_of_shape(const char* name, const Shape& shape) {
    return require_shape(name, free_activation(name, shape.size()), shape);
  }
  TensorPointer activation_of_shape(const char* name, const Shape& shape) {
    return require_shape(name, activation(name, shape.size()), shape);
  }
  TensorPointer optional_activation(const char* name, const Shape& shape) {
    return object_.Get(name).IsUndefined() ? nullptr : activation_of_shape(name, shape);
  }
  TensorPointer optional_tensor(const char* name, const Shape& shape) {
    return object_.Get(name).IsUndefined() ? nullptr : tensor_of_shape(name, shape);
  }
  Napi::Value get(const char* name) const { return object_.Get(name); }
  // `gelu`, or anything else for none.
  Activation activation_function(const char* name) const {
    const Napi::Value value = object_.Get(name);
    return !value.IsUndefined() && to_string(value, name) == "gelu" ? Activation::kGeluTanh : Activation::kNone;
  }
  // A type that is an option, or `otherwise`.
  DType type(const char* name, DType otherwise) const {
    const Napi::Value value = object_.Get(name);
    return value.IsUndefined() ? otherwise : to_compute_dtype(value);
  }
  // The type of results that are activations: the option `dtype`.
  DType result_type(DType otherwise) const { return type("dtype", otherwise); }
  Device& device() const { return *device_; }
  void set_device(Device& device) { device_ = &device; }
  int threads() const { return threads_; }

 private:
  static TensorPointer require_shape(const char* name, TensorPointer found, const Shape& shape) {
    if (found->shape != shape)
      throw Error(kErrorShape,
                  std::string(name) + ": expected shape " + describe(shape) + ", got " + describe(found->shape));
    return found;
  }

  Napi::Object object_;
  Device* device_ = nullptr;
  std::optional<DType> activation_type_;
  int threads_ = 1;
};

// Whether results start as NaN, so that tests see what a kernel leaves unwritten: SIGLIP2_POISON=1.
bool poisoning();
void poison(Device& device, const DeviceBuffer& buffer);

inline TensorPointer new_tensor(Device& device, Shape shape, DType dtype = DType::kFloat32) {
  auto tensor = std::make_shared<Tensor>();
  tensor->device = &device;
  tensor->dtype = dtype;
  tensor->shape = std::move(shape);
  const std::int64_t elements = tensor->elements();
  if (elements < 0)
    throw Error(kErrorOutOfMemory,
                "a result of shape " + describe(tensor->shape) + " is larger than the address space");
  tensor->buffer = DeviceBuffer(device, static_cast<std::size_t>(elements) * size_of(dtype));
  if (poisoning()) poison(device, tensor->buffer);
  return tensor;
}

// A tensor as a matrix: all dimensions but the first flattened.
inline MatrixView matrix(const Tensor& tensor) {
  const std::int64_t rows = tensor.shape.empty() ? 1 : tensor.shape[0];
  std::int64_t columns = 1;
  for (std::size_t i = 1; i < tensor.shape.size(); ++i)
    columns *= tensor.shape[i];
  return {tensor.buffer.data(), tensor.dtype, rows, columns, columns};
}

// A weight as a matrix, packed on the device for the products of one call: once, also when the call is measured.
class PackedOnce {
 public:
  PackedOnce(TensorPointer weight, DType dtype, bool transpose)
      : weight_(std::move(weight)), dtype_(dtype), transpose_(transpose) {}

  PackedWeight get(Device& device, OpContext& context) {
    const ConstMatrixView part = matrix(*weight_);
    const std::int64_t out_features = transpose_ ? part.columns : part.rows;
    const std::int64_t in_features = transpose_ ? part.rows : part.columns;
    if (!packed_) {
      packed_.emplace(device, device.table().packed_weight_bytes(out_features, in_features, dtype_));
      pack_weight(device.table(), context, {&part, 1, packed_->data(), transpose_, dtype_, true});
    }
    return {packed_->data(), out_features, in_features, dtype_};
  }

 private:
  TensorPointer weight_;
  DType dtype_;
  bool transpose_;
  std::optional<DeviceBuffer> packed_;
};

inline const float* floats(const TensorPointer& tensor) {
  return tensor ? tensor->buffer.as<const float>() : nullptr;
}

inline Napi::Value to_javascript(Napi::Env env, const TensorPointer& tensor) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("handle", make_handle(env, tensor, static_cast<std::int64_t>(tensor->buffer.bytes())));
  Napi::Array shape = Napi::Array::New(env);
  for (const std::int64_t size : tensor->shape)
    shape.Set(shape.Length(), static_cast<double>(size));
  object.Set("shape", shape);
  object.Set("dtype", name_of(tensor->dtype));
  return object;
}

// Queues a kernel. `body` allocates the outputs and runs the operation on the executor's thread; when the call is
// measured, several times.
using Outputs = std::vector<std::pair<const char*, TensorPointer>>;
template <typename Body>
Napi::Value submit(const Napi::CallbackInfo& info, const KernelArguments& arguments, Body body) {
  Device& device = arguments.device();
  const int threads = arguments.threads();
  const std::optional<Timing> timing = to_timing(arguments.get("timing"));
  return Environment::of(info.Env())
      .submit(info.Env(), device.executor(), nullptr, [&device, threads, timing, body = std::move(body)]() -> Finish {
        OpContext context = device.context(threads);
        std::vector<double> milliseconds;
        if (timing) milliseconds = time_runs(device, context, *timing, [&] { body(device, context); });
        auto outputs = std::make_shared<Outputs>(body(device, context));
        return [outputs, milliseconds](Napi::Env env) -> Napi::Value {
          Napi::Object object = Napi::Object::New(env);
          for (const auto& [name, tensor] : *outputs)
            object.Set(name, to_javascript(env, tensor));
          set_milliseconds(env, object, milliseconds);
          return object;
        };
      });
}

}  // namespace siglip2::addon
