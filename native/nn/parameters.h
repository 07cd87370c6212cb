// What layers compute with, and where it comes from.
//
// A tower asks a source for its parameters by Hugging Face name and keeps what it gets: pointers to device memory that
// the source owns. Inference reads a checkpoint (nn/checkpoint_parameters.h). Training keeps master weights in float32
// and gradients beside them (train/parameter_store.h); then the pointers to gradients below are set, for every
// parameter that is not frozen.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>

#include "ops/linear/linear.h"
#include "ops/map_pool/map_pool.h"

namespace siglip2 {

// The type that activations have where layers compute in `type`: float32 on devices that have it for the operands of
// products alone.
inline DType activation_type_for(const OpTable& table, DType type) {
  return (table.activation_types >> static_cast<int>(type) & 1u) != 0 ? type : DType::kFloat32;
}

// A parameter that is used as it is stored.
struct VectorWeights {
  const float* values = nullptr;
  float* gradient = nullptr;  // accumulated into; null: frozen, or inference
};

// A linear layer whose weight is packed for its device.
struct LinearWeights {
  PackedWeight weight;
  const float* bias = nullptr;
  // Training only: the packed transpose, for the gradient of the layer's input, and the gradients, [out, in] and [out].
  PackedWeight transposed;
  float* grad_weight = nullptr;
  float* grad_bias = nullptr;
};

struct LayerNormWeights {
  const float* weight = nullptr;
  const float* bias = nullptr;
  float* grad_weight = nullptr;  // both or neither
  float* grad_bias = nullptr;
};

// The attention of the pooling head: see ops/map_pool/map_pool.h.
struct PoolingWeights {
  const float* probe_keys = nullptr;
  const float* value_weight = nullptr;
  const float* value_bias = nullptr;
  // Training only: what the probe keys are derived from, and the gradients; all or none.
  ProbeKeysArgs derivation;
  float* grad_probe = nullptr;
  float* grad_projection_weight = nullptr;  // [3·width, width]: query, key, value
  float* grad_projection_bias = nullptr;
};

// The token table. Its gradient is sparse: rows are numbered for each batch (see ops/token_embedding).
struct TokenTable {
  ConstMatrixView values;
  // Training only, and null when the table is frozen.
  struct SparseGradient {
    float* rows = nullptr;  // [slot_count, width], accumulated into
    std::int64_t slot_count = 0;
  };
  SparseGradient* gradient = nullptr;
};

class Parameters {
 public:
  virtual ~Parameters() = default;

  virtual VectorWeights vector(const std::string& name, std::initializer_list<std::int64_t> shape) = 0;
  // The layers PREFIX + name for each name, NAME.weight [out, in] and NAME.bias [out], stacked along their outputs: one
  // product for query, key and value.
  virtual LinearWeights stacked_linear(const std::string& prefix, std::initializer_list<const char*> names,
                                       std::int64_t out_features, std::int64_t in_features) = 0;
  // The convolution NAME.weight [width, 3, patch, patch] as a linear layer on patches in row, column, channel order.
  virtual LinearWeights patch_convolution(const std::string& name, std::int64_t width, int patch) = 0;
  // NAME.probe [1, 1, width], NAME.attention.in_proj_weight [3·width, width] and .in_proj_bias [3·width].
  virtual PoolingWeights pooling(const std::string& name, std::int64_t width, int heads) = 0;
  virtual TokenTable token_table(const std::string& name, std::int64_t vocabulary, std::int64_t width) = 0;
  // Throws ERR_SIGLIP_CHECKPOINT when parameters that are read from mapped files can no longer be read.
  virtual void check_files() const = 0;
  // The element type of activations.
  virtual DType activation_type() const = 0;
  // Bytes of device memory that the parameters take.
  virtual std::size_t bytes() const = 0;

  LinearWeights linear(const std::string& name, std::int64_t out_features, std::int64_t in_features) {
    return stacked_linear(name, {""}, out_features, in_features);
  }
  LayerNormWeights layer_norm(const std::string& name, std::int64_t width) {
    const VectorWeights weight = vector(name + ".weight", {width});
    const VectorWeights bias = vector(name + ".bias", {width});
    return {weight.values, bias.values, weight.gradient, bias.gradient};
  }
};

// Reorders a convolution weight [out, 3, patch, patch] to the linear weight [out, patch·patch·3] that acts on patches
// in row, column, channel order, or back.
void convolution_to_linear(const float* convolution, std::int64_t out_features, int patch, float* linear);
void linear_to_convolution(const float* linear, std::int64_t out_features, int patch, float* convolution);

}  // namespace siglip2
