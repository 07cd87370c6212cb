// The objects of the core that JavaScript holds, and how their handles are told apart.
#pragma once

#include <memory>
#include <vector>

#include "addon/arguments.h"
#include "backend/cancel.h"
#include "backend/device.h"
#include "nn/tower_cache.h"
#include "tensor/checkpoint.h"
#include "tensor/shape_check.h"
#include "train/trainer.h"

namespace siglip2::addon {

// A loaded model: towers, shared with other models of the same files, and where they run.
struct Model {
  Device* device = nullptr;
  int threads = 1;
  std::shared_ptr<const VisionTower> vision;
  std::shared_ptr<const TextTower> text;
};

// A tensor of the kernel API.
struct Tensor {
  Device* device = nullptr;
  DType dtype = DType::kFloat32;
  std::vector<std::int64_t> shape;
  DeviceBuffer buffer;

  std::int64_t elements() const { return count_elements(shape); }
};

// A trainer and where it runs. The trainer itself is made on the executor's thread.
struct TrainerHandle {
  Device* device = nullptr;
  int threads = 1;
  VisionConfig vision;
  std::unique_ptr<Trainer> trainer;
};

template <>
struct HandleTag<Checkpoint> {
  static constexpr napi_type_tag value = {0x7c1f0e5ad3b14a01, 0x9a40c6de81f25b01};
  static constexpr const char* name = "checkpoint";
};
template <>
struct HandleTag<Model> {
  static constexpr napi_type_tag value = {0x7c1f0e5ad3b14a02, 0x9a40c6de81f25b02};
  static constexpr const char* name = "model";
};
template <>
struct HandleTag<Tensor> {
  static constexpr napi_type_tag value = {0x7c1f0e5ad3b14a03, 0x9a40c6de81f25b03};
  static constexpr const char* name = "tensor";
};
template <>
struct HandleTag<TrainerHandle> {
  static constexpr napi_type_tag value = {0x7c1f0e5ad3b14a05, 0x9a40c6de81f25b05};
  static constexpr const char* name = "trainer";
};
template <>
struct HandleTag<CancelToken> {
  static constexpr napi_type_tag value = {0x7c1f0e5ad3b14a04, 0x9a40c6de81f25b04};
  static constexpr const char* name = "cancel token";
};

// The functions of each file, added to the addon's exports.
void add_checkpoint_functions(Napi::Env env, Napi::Object exports);
void add_model_functions(Napi::Env env, Napi::Object exports);
void add_tensor_functions(Napi::Env env, Napi::Object exports);
void add_trainer_functions(Napi::Env env, Napi::Object exports);
void add_kernel_functions(Napi::Env env, Napi::Object exports);
void add_loss_functions(Napi::Env env, Napi::Object exports);
void add_layer_backward_functions(Napi::Env env, Napi::Object exports);
void add_attention_backward_functions(Napi::Env env, Napi::Object exports);
void add_self_attention_functions(Napi::Env env, Napi::Object exports);
void add_optimizer_functions(Napi::Env env, Napi::Object exports);

}  // namespace siglip2::addon
