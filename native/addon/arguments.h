// Reading JavaScript arguments. lib/ has already checked what users pass; these checks keep a mistake in lib/ from
// becoming a wrong memory access, and throw a TypeError that names the argument.
#pragma once

#include <napi.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tensor/dtype.h"
#include "tensor/error.h"

namespace siglip2::addon {

struct Bytes {
  std::shared_ptr<std::uint8_t[]> data;
  std::size_t size;
};

struct ByteView {
  const std::uint8_t* data;
  std::size_t size;
};

std::string to_string(const Napi::Value& value, const char* argument);
std::int64_t to_integer(const Napi::Value& value, const char* argument);
// RangeError outside [least, most].
std::int64_t to_integer(const Napi::Value& value, const char* argument, std::int64_t least, std::int64_t most);
// How many threads to use.
int to_threads(const Napi::Value& value);
double to_number(const Napi::Value& value, const char* argument);
bool to_boolean(const Napi::Value& value, const char* argument);
Napi::Object to_object(const Napi::Value& value, const char* argument);
Napi::Array to_array(const Napi::Value& value, const char* argument);

// Copies, because the caller may change or transfer the array while the work is queued.
std::vector<float> to_floats(const Napi::Value& value, const char* argument);
std::vector<std::int32_t> to_int32s(const Napi::Value& value, const char* argument);
Bytes to_bytes(const Napi::Value& value, const char* argument);
// The bytes themselves, for work that is done when the call returns.
ByteView view_bytes(const Napi::Value& value, const char* argument);
// Numbers of an ordinary array.
std::vector<std::int64_t> to_shape(const Napi::Value& value, const char* argument);

// A new array of zeros. Throws ERR_SIGLIP_OUT_OF_MEMORY, where V8 itself would end the process.
Napi::Float32Array new_floats(Napi::Env env, std::size_t count);
Napi::Float32Array from_floats(Napi::Env env, const std::vector<float>& values);
Napi::Int32Array from_int32s(Napi::Env env, const std::vector<std::int32_t>& values);
Napi::Uint8Array from_bytes(Napi::Env env, const std::vector<std::uint8_t>& values);

// The name of an element type. ERR_SIGLIP_UNSUPPORTED for others.
DType to_dtype(const Napi::Value& value);
// The same of what can be computed in, which no tensor need have: also int8.
DType to_compute_dtype(const Napi::Value& value);

// A type that checkpoints store floating-point numbers in, as safetensors names it. ERR_SIGLIP_CHECKPOINT for others.
DType to_stored_dtype(const Napi::Value& value);

// The JavaScript error for a C++ exception: `code` and `details` as siglip2::Error has them. lib/native.ts makes it a
// SiglipError.
Napi::Error to_javascript_error(Napi::Env env, const std::exception_ptr& exception);

// Runs a synchronous function of the addon; C++ exceptions become JavaScript ones.
template <typename Body>
Napi::Value guarded(const Napi::CallbackInfo& info, Body&& body) {
  try {
    return body();
  } catch (const Napi::Error&) {
    throw;
  } catch (...) {
    throw to_javascript_error(info.Env(), std::current_exception());
  }
}

// Objects of the core that JavaScript holds. The type tag keeps one kind of handle from being taken for another.
template <typename T>
struct HandleTag;  // specialised with `static constexpr napi_type_tag value` and `static constexpr const char* name`

template <typename T>
struct Handle {
  std::shared_ptr<T> value;
  // Memory that the garbage collector should know of.
  std::int64_t external_bytes = 0;

  void reset(Napi::Env env) {
    value.reset();
    if (external_bytes != 0) Napi::MemoryManagement::AdjustExternalMemory(env, -external_bytes);
    external_bytes = 0;
  }
};

template <typename T>
Napi::Value make_handle(Napi::Env env, std::shared_ptr<T> value, std::int64_t external_bytes = 0) {
  if (external_bytes != 0) Napi::MemoryManagement::AdjustExternalMemory(env, external_bytes);
  auto external = Napi::External<Handle<T>>::New(env, new Handle<T>{std::move(value), external_bytes},
                                                 [](Napi::Env ending, Handle<T>* handle) {
                                                   handle->reset(ending);
                                                   delete handle;
                                                 });
  external.TypeTag(&HandleTag<T>::value);
  return external;
}

template <typename T>
Handle<T>* find_handle(const Napi::Value& value) {
  if (!value.IsExternal()) return nullptr;
  auto external = value.As<Napi::External<Handle<T>>>();
  return external.CheckTypeTag(&HandleTag<T>::value) ? external.Data() : nullptr;
}

// The object behind a handle. TypeError for another kind of value, ERR_SIGLIP_DISPOSED after `release`.
template <typename T>
std::shared_ptr<T> from_handle(const Napi::Value& value, const char* argument) {
  Handle<T>* const handle = find_handle<T>(value);
  if (handle == nullptr)
    throw Napi::TypeError::New(value.Env(), std::string(argument) + ": expected a " + HandleTag<T>::name);
  if (!handle->value) throw Error(kErrorDisposed, std::string("the ") + HandleTag<T>::name + " has been disposed");
  return handle->value;
}

}  // namespace siglip2::addon
