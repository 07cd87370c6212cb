#include "addon/arguments.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <new>
#include <stdexcept>

#include "cpu/memory.h"

namespace siglip2::addon {
namespace {

[[noreturn]] void throw_type_error(const Napi::Value& value, const char* argument, const char* expected) {
  throw Napi::TypeError::New(value.Env(), std::string(argument) + ": expected " + expected);
}

template <typename Array, typename T>
std::vector<T> copy_typed_array(const Napi::Value& value, const char* argument, napi_typedarray_type type,
                                const char* expected) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != type)
    throw_type_error(value, argument, expected);
  auto array = value.As<Array>();
  std::vector<T> copy(array.ElementLength());
  if (!copy.empty()) std::memcpy(copy.data(), array.Data(), copy.size() * sizeof(T));
  return copy;
}

}  // namespace

std::string to_string(const Napi::Value& value, const char* argument) {
  if (!value.IsString()) throw_type_error(value, argument, "a string");
  return value.As<Napi::String>().Utf8Value();
}

double to_number(const Napi::Value& value, const char* argument) {
  if (!value.IsNumber()) throw_type_error(value, argument, "a number");
  return value.As<Napi::Number>().DoubleValue();
}

std::int64_t to_integer(const Napi::Value& value, const char* argument) {
  const double number = to_number(value, argument);
  if (!(std::abs(number) <= 9007199254740991.0) || number != std::floor(number))
    throw_type_error(value, argument, "an integer");
  return static_cast<std::int64_t>(number);
}

std::int64_t to_integer(const Napi::Value& value, const char* argument, std::int64_t least, std::int64_t most) {
  const std::int64_t number = to_integer(value, argument);
  if (number < least || number > most)
    throw Napi::RangeError::New(value.Env(), std::string(argument) + ": expected an integer from " +
                                                 std::to_string(least) + " to " + std::to_string(most) + ", got " +
                                                 std::to_string(number));
  return number;
}

int to_threads(const Napi::Value& value) {
  return static_cast<int>(to_integer(value, "threads", 1, 1024));
}

bool to_boolean(const Napi::Value& value, const char* argument) {
  if (!value.IsBoolean()) throw_type_error(value, argument, "a boolean");
  return value.As<Napi::Boolean>().Value();
}

Napi::Object to_object(const Napi::Value& value, const char* argument) {
  if (!value.IsObject()) throw_type_error(value, argument, "an object");
  return value.As<Napi::Object>();
}

Napi::Array to_array(const Napi::Value& value, const char* argument) {
  if (!value.IsArray()) throw_type_error(value, argument, "an array");
  return value.As<Napi::Array>();
}

std::vector<float> to_floats(const Napi::Value& value, const char* argument) {
  return copy_typed_array<Napi::Float32Array, float>(value, argument, napi_float32_array, "a Float32Array");
}

std::vector<std::int32_t> to_int32s(const Napi::Value& value, const char* argument) {
  return copy_typed_array<Napi::Int32Array, std::int32_t>(value, argument, napi_int32_array, "an Int32Array");
}

ByteView view_bytes(const Napi::Value& value, const char* argument) {
  if (!value.IsTypedArray()) throw_type_error(value, argument, "a typed array");
  // Not through the array's buffer: Node-API does not take a SharedArrayBuffer for one.
  void* data = nullptr;
  if (napi_get_typedarray_info(value.Env(), value, nullptr, nullptr, &data, nullptr, nullptr) != napi_ok)
    throw Napi::Error::New(value.Env());
  return {static_cast<const std::uint8_t*>(data), value.As<Napi::TypedArray>().ByteLength()};
}

Bytes to_bytes(const Napi::Value& value, const char* argument) {
  const ByteView from = view_bytes(value, argument);
  // Not a vector: decoded photographs have megabytes, in which zeros that are then overwritten, and pages that the
  // system hands out one by one, cost more than the copy.
  Bytes copy{{static_cast<std::uint8_t*>(cpu::allocate(from.size)), cpu::release}, from.size};
  if (from.size > 0) std::memcpy(copy.data.get(), from.data, from.size);
  return copy;
}

std::vector<std::int64_t> to_shape(const Napi::Value& value, const char* argument) {
  const Napi::Array array = to_array(value, argument);
  std::vector<std::int64_t> shape;
  for (std::uint32_t i = 0; i < array.Length(); ++i)
    shape.push_back(to_integer(array.Get(i), argument));
  return shape;
}

namespace {

// V8 ends the process when memory for an array is missing, or when an array is longer than it can be.
void require_array(const char* kind, std::size_t count, std::size_t element_bytes) {
  // The most elements that a typed array may have in every V8 that Node.js 20 and later use.
  constexpr std::size_t kMostElements = std::numeric_limits<std::uint32_t>::max();
  constexpr std::size_t kMostBytes = std::numeric_limits<std::size_t>::max() / 2;
  const std::size_t bytes = count > kMostBytes / element_bytes ? kMostBytes : element_bytes * count;
  cpu::require_memory(bytes);
  if (count > kMostElements)
    throw Error(
        kErrorOutOfMemory,
        "a result of " + std::to_string(count) + " values is larger than a " + kind + " can be; ask for less at a time",
        {{"requestedBytes", static_cast<std::int64_t>(bytes)},
         {"freeBytes", static_cast<std::int64_t>(kMostElements * element_bytes)}});
}

}  // namespace

Napi::Float32Array new_floats(Napi::Env env, std::size_t count) {
  require_array("Float32Array", count, sizeof(float));
  return Napi::Float32Array::New(env, count);
}

Napi::Float32Array from_floats(Napi::Env env, const std::vector<float>& values) {
  auto array = new_floats(env, values.size());
  if (!values.empty()) std::memcpy(array.Data(), values.data(), values.size() * sizeof(float));
  return array;
}

Napi::Int32Array from_int32s(Napi::Env env, const std::vector<std::int32_t>& values) {
  require_array("Int32Array", values.size(), sizeof(std::int32_t));
  auto array = Napi::Int32Array::New(env, values.size());
  if (!values.empty()) std::memcpy(array.Data(), values.data(), values.size() * sizeof(std::int32_t));
  return array;
}

Napi::Uint8Array from_bytes(Napi::Env env, const std::vector<std::uint8_t>& values) {
  require_array("Uint8Array", values.size(), 1);
  auto array = Napi::Uint8Array::New(env, values.size());
  if (!values.empty()) std::memcpy(array.Data(), values.data(), values.size());
  return array;
}

DType to_dtype(const Napi::Value& value) {
  const std::string name = to_string(value, "dtype");
  for (const DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16, DType::kInt32, DType::kUInt8})
    if (name == name_of(dtype)) return dtype;
  throw Error(kErrorUnsupported, "dtype: tensors may be float32, float16, bfloat16, int32 or uint8, not " + name);
}

DType to_compute_dtype(const Napi::Value& value) {
  return value.IsString() && to_string(value, "dtype") == name_of(DType::kInt8) ? DType::kInt8 : to_dtype(value);
}

DType to_stored_dtype(const Napi::Value& value) {
  const std::string name = to_string(value, "dtype");
  if (name == "F32" || name == "float32") return DType::kFloat32;
  if (name == "F16" || name == "float16") return DType::kFloat16;
  if (name == "BF16" || name == "bfloat16") return DType::kBFloat16;
  throw Error(kErrorCheckpoint, "dtype " + name + " is not supported; supported are F32, F16 and BF16");
}

Napi::Error to_javascript_error(Napi::Env env, const std::exception_ptr& exception) {
  const auto with_code = [&](const std::string& message, const char* code) {
    Napi::Error error = Napi::Error::New(env, message);
    error.Value().Set("code", code);
    return error;
  };
  try {
    std::rethrow_exception(exception);
  } catch (const Error& error) {
    Napi::Error result = with_code(error.what(), error.code());
    if (!error.details().empty()) {
      Napi::Object details = Napi::Object::New(env);
      for (const ErrorDetail& detail : error.details())
        details.Set(detail.key, static_cast<double>(detail.value));
      result.Value().Set("details", details);
    }
    return result;
  } catch (const std::bad_alloc&) {
    return with_code("not enough memory", kErrorOutOfMemory);
  } catch (const std::length_error&) {
    return with_code("the request is larger than the address space", kErrorOutOfMemory);
  } catch (const std::exception& error) {
    return Napi::Error::New(env, error.what());
  } catch (...) {
    return Napi::Error::New(env, "unknown native error");
  }
}

}  // namespace siglip2::addon
