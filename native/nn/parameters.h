// From stored tensors to parameters on a device. Names are Hugging Face's.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "backend/cancel.h"
#include "backend/device.h"
#include "ops/linear/linear.h"
#include "tensor/checkpoint.h"

namespace siglip2 {

// A linear layer whose weight is packed for its device.
struct LinearWeights {
  PackedWeight weight;
  const float* bias = nullptr;
};

struct LayerNormWeights {
  const float* weight = nullptr;
  const float* bias = nullptr;
};

// Reads parameters of one tower onto a device and owns their memory there. Every function throws
// ERR_SIGLIP_CHECKPOINT, naming the tensor, the shape expected and the shape found, when a tensor does not fit.
class Parameters {
 public:
  // `cancel` stops the reading between two tensors with ERR_SIGLIP_ABORTED.
  Parameters(Device& device, const Checkpoint& checkpoint, int threads, std::shared_ptr<const CancelToken> cancel);

  // Values of a tensor widened to float32, in host memory.
  std::vector<float> read(const std::string& name, std::initializer_list<std::int64_t> shape);
  // A float32 copy on the device.
  const float* vector(const std::string& name, std::initializer_list<std::int64_t> shape);
  // NAME.weight [out, in] and NAME.bias [out].
  LinearWeights linear(const std::string& name, std::int64_t out_features, std::int64_t in_features);
  // The layers PREFIX + name for each name, stacked along their outputs: one product for query, key and value.
  LinearWeights stacked_linear(const std::string& prefix, std::initializer_list<const char*> names,
                               std::int64_t out_features, std::int64_t in_features);
  LayerNormWeights layer_norm(const std::string& name, std::int64_t width);
  // A tensor that stays where it is, in the mapped file.
  Checkpoint::Tensor mapped(const std::string& name, std::initializer_list<std::int64_t> shape) const {
    return find(name, shape);
  }

  // Puts values of the caller's on the device.
  const float* upload(const std::vector<float>& values);
  PackedWeight pack(const std::vector<ConstMatrixView>& parts);

  // Bytes of device memory that the parameters take.
  std::size_t bytes() const { return bytes_; }

 private:
  Checkpoint::Tensor find(const std::string& name, std::initializer_list<std::int64_t> shape) const;
  void* allocate(std::size_t bytes);

  Device& device_;
  const Checkpoint& checkpoint_;
  std::shared_ptr<const CancelToken> cancel_;
  OpContext context_;
  std::vector<DeviceBuffer> buffers_;
  std::size_t bytes_ = 0;
};

}  // namespace siglip2
