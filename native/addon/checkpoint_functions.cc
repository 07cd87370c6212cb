// Checkpoints: opening mapped files, reading tensors back, counting values that are not finite.
#include <cstring>

#include "addon/handles.h"
#include "addon/promise_task.h"
#include "backend/device.h"
#include "tensor/convert.h"

namespace siglip2::addon {
namespace {

// File work that no device is needed for, so that it does not wait for one.
Executor& host_executor() {
  static auto* const executor = new Executor;
  return *executor;
}

// openCheckpoint([{ path, tensors: [{ name, dtype, shape, begin, end }] }])
Napi::Value open_checkpoint(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    std::vector<CheckpointFile> files;
    const Napi::Array list = to_array(info[0], "files");
    for (std::uint32_t f = 0; f < list.Length(); ++f) {
      const Napi::Object file = to_object(list.Get(f), "files");
      CheckpointFile entry;
      entry.path = to_string(file.Get("path"), "path");
      const Napi::Array tensors = to_array(file.Get("tensors"), "tensors");
      for (std::uint32_t t = 0; t < tensors.Length(); ++t) {
        const Napi::Object tensor = to_object(tensors.Get(t), "tensors");
        entry.tensors.push_back({to_string(tensor.Get("name"), "name"), to_stored_dtype(tensor.Get("dtype")),
                                 to_shape(tensor.Get("shape"), "shape"),
                                 static_cast<std::uint64_t>(to_integer(tensor.Get("begin"), "begin")),
                                 static_cast<std::uint64_t>(to_integer(tensor.Get("end"), "end"))});
      }
      files.push_back(std::move(entry));
    }
    return make_handle(info.Env(), std::make_shared<Checkpoint>(std::move(files)));
  });
}

// readTensor(checkpoint, name, dtype): the tensor's bytes, in its stored type or rounded to another.
Napi::Value read_tensor(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const auto checkpoint = from_handle<Checkpoint>(info[0], "checkpoint");
    const std::string name = to_string(info[1], "name");
    const DType dtype = to_stored_dtype(info[2]);
    return Environment::of(info.Env()).submit(info.Env(), host_executor(), nullptr, [=]() -> Finish {
      const Checkpoint::Tensor tensor = checkpoint->tensor(name);
      const auto count = static_cast<std::size_t>(tensor.elements());
      const bool converted = dtype != tensor.entry->dtype;
      // The result twice, here and as JavaScript's, and the values between the two types.
      require_host_memory(count * (2 * size_of(dtype) + (converted ? sizeof(float) : 0)));
      auto bytes = std::make_shared<std::vector<std::uint8_t>>(count * size_of(dtype));
      if (!converted) {
        if (!bytes->empty()) std::memcpy(bytes->data(), tensor.data, bytes->size());
      } else {
        std::vector<float> wide(count);
        widen_to_float(tensor.entry->dtype, tensor.data, wide.data(), count);
        narrow_from_float(dtype, wide.data(), bytes->data(), count);
      }
      checkpoint->release_pages(name);
      return [bytes](Napi::Env env) -> Napi::Value { return from_bytes(env, *bytes); };
    });
  });
}

// checkpointStatistics(checkpoint, token): [{ name, elements, nan, infinite }] of the tensors that hold such values,
// and the totals.
Napi::Value checkpoint_statistics(const Napi::CallbackInfo& info) {
  return guarded(info, [&]() -> Napi::Value {
    const auto checkpoint = from_handle<Checkpoint>(info[0], "checkpoint");
    const auto cancel = from_handle<CancelToken>(info[1], "token");
    return Environment::of(info.Env()).submit(info.Env(), host_executor(), cancel, [=]() -> Finish {
      struct Row {
        std::string name;
        TensorStatistics statistics;
      };
      std::vector<Row> rows;
      TensorStatistics total;
      for (const std::string& name : checkpoint->names()) {
        cancel->check();
        const TensorStatistics statistics = count_non_finite(checkpoint->tensor(name));
        checkpoint->release_pages(name);
        total.elements += statistics.elements;
        total.nan += statistics.nan;
        total.infinite += statistics.infinite;
        if (statistics.nan != 0 || statistics.infinite != 0) rows.push_back({name, statistics});
      }
      return [rows = std::move(rows), total](Napi::Env env) -> Napi::Value {
        const auto convert = [env](const TensorStatistics& statistics) {
          Napi::Object object = Napi::Object::New(env);
          object.Set("elements", static_cast<double>(statistics.elements));
          object.Set("nan", static_cast<double>(statistics.nan));
          object.Set("infinite", static_cast<double>(statistics.infinite));
          return object;
        };
        Napi::Object result = convert(total);
        Napi::Array tensors = Napi::Array::New(env);
        for (const Row& row : rows) {
          Napi::Object entry = convert(row.statistics);
          entry.Set("name", row.name);
          tensors.Set(tensors.Length(), entry);
        }
        result.Set("tensors", tensors);
        return result;
      };
    });
  });
}

}  // namespace

void add_checkpoint_functions(Napi::Env env, Napi::Object exports) {
  exports.Set("openCheckpoint", Napi::Function::New(env, open_checkpoint, "openCheckpoint"));
  exports.Set("readTensor", Napi::Function::New(env, read_tensor, "readTensor"));
  exports.Set("checkpointStatistics", Napi::Function::New(env, checkpoint_statistics, "checkpointStatistics"));
}

}  // namespace siglip2::addon
