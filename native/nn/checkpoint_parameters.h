// Parameters for inference: read from a checkpoint, packed for the device, and not changed any more.
#pragma once

#include <memory>
#include <vector>

#include "backend/cancel.h"
#include "backend/device.h"
#include "nn/packed_store.h"
#include "nn/parameters.h"
#include "tensor/checkpoint.h"

namespace siglip2 {

// Every function throws ERR_SIGLIP_CHECKPOINT, naming the tensor, the shape expected and the shape found, when a tensor
// does not fit.
class CheckpointParameters final : public Parameters {
 public:
  // `type` is what layers compute in: that of packed weights, and of activations where the device has them in it, which
  // are float32 otherwise. In int8 are the weights of the encoder's blocks alone; those of the few layers around them
  // are in bfloat16. `cancel` stops the reading between two tensors with ERR_SIGLIP_ABORTED. Packed weights are taken
  // from `store`, and added to it where it lacks them; null: without. Only on devices whose memory is the host's.
  CheckpointParameters(Device& device, DType type, std::shared_ptr<const Checkpoint> checkpoint, int threads,
                       std::shared_ptr<const CancelToken> cancel, std::shared_ptr<PackedStore> store);

  VectorWeights vector(const std::string& name, std::initializer_list<std::int64_t> shape) override;
  LinearWeights stacked_linear(const std::string& prefix, std::initializer_list<const char*> names,
                               std::int64_t out_features, std::int64_t in_features) override;
  LinearWeights patch_convolution(const std::string& name, std::int64_t width, int patch) override;
  PoolingWeights pooling(const std::string& name, std::int64_t width, int heads) override;
  // The table, by far the largest parameter, stays in the mapped file where the device is the host; elsewhere it is
  // copied to the device in the type that it is stored in.
  TokenTable token_table(const std::string& name, std::int64_t vocabulary, std::int64_t width) override;
  void check_files() const override;
  DType activation_type() const override { return activation_type_; }
  std::size_t bytes() const override { return bytes_; }

 private:
  Checkpoint::Tensor find(const std::string& name, std::initializer_list<std::int64_t> shape) const;
  // Values of a tensor widened to float32, in host memory.
  std::vector<float> read(const std::string& name, std::initializer_list<std::int64_t> shape);
  const float* upload(const float* values, std::size_t count);
  PackedWeight pack(const std::string& name, const std::vector<ConstMatrixView>& parts);
  void* allocate(std::size_t bytes);

  Device& device_;
  DType weight_type_;
  DType activation_type_;
  std::shared_ptr<const Checkpoint> checkpoint_;
  std::shared_ptr<const CancelToken> cancel_;
  std::shared_ptr<PackedStore> store_;
  OpContext context_;
  std::vector<DeviceBuffer> buffers_;
  std::size_t bytes_ = 0;
  std::string token_table_name_;  // empty: it is not read from the file any more
};

}  // namespace siglip2
