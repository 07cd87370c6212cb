// One run of a model: where its activations live, what it runs on, and whether it runs at all.
//
// The same layer code runs twice. The first time the pass is a plan: allocations are counted and operations skipped.
// Then the arena grows to what was counted, and the second time the operations run. So the memory of a pass is known,
// and refused if it is too much, before any work starts. On devices whose operations need memory of their own while
// they run (OpTable::start_planning) the plan calls the operations too, which then only count.
//
// Activations have one element type in a pass, but operands of products may lie rounded (OpTable::rounded_operands). On
// devices that are not the host their rows are padded to whole 16 bytes, so that kernels may read them in vectors; so
// views need not be dense.
#pragma once

#include <cstdint>
#include <functional>

#include "backend/cancel.h"
#include "backend/device.h"
#include "ops/attention/attention.h"
#include "ops/convert/convert.h"
#include "ops/gelu/gelu.h"
#include "ops/l2_normalize/l2_normalize.h"
#include "ops/layer_norm/layer_norm.h"
#include "ops/linear/linear.h"
#include "ops/map_pool/map_pool.h"
#include "ops/mlp/mlp.h"
#include "ops/patchify/patchify.h"
#include "ops/position_embedding/position_embedding.h"
#include "ops/self_attention/self_attention.h"
#include "ops/sigmoid_loss/sigmoid_loss.h"
#include "ops/token_embedding/token_embedding.h"

namespace siglip2 {

class Pass {
 public:
  // Plans and then runs `body` on the device's executor thread. Throws what the body throws, ERR_SIGLIP_OUT_OF_MEMORY,
  // or ERR_SIGLIP_ABORTED when `cancel` fires between two operations.
  static void run(Device& device, DType activation_type, int threads, const CancelToken& cancel,
                  const std::function<void(Pass&)>& body);
  // Only the plan: how many bytes of device memory `body` needs at once. Throws what the body throws.
  static std::size_t plan(Device& device, DType activation_type, const std::function<void(Pass&)>& body);

  bool planning() const { return planning_; }
  // Whether this is part of a training step: all of its forward passes are then the function that backward passes
  // differentiate, to the bit.
  bool training() const { return training_; }
  void set_training() { training_ = true; }
  // Whether operations are calls on the host, not work that a device is given.
  bool on_host() const { return device_.table().host_memory; }
  // Work that comes now is compared with that of earlier passes by itself (OpTable::begin_pass): after work that
  // differs from batch to batch, before work that does not.
  void divide();

  // Activations in the arena.
  MatrixView allocate(std::int64_t rows, std::int64_t columns);
  // What products in `product_type` take for operands: rounded where they round it anyway and the device has it so.
  MatrixView allocate_operand(std::int64_t rows, std::int64_t columns, DType product_type);
  // Whether that is rounded.
  bool rounds_operands(DType product_type) const {
    return product_type == DType::kBFloat16 && device_.table().rounded_operands;
  }
  // A dense float32 matrix: statistics, workspaces, gradients of the loss.
  MatrixView allocate_float(std::int64_t rows, std::int64_t columns);
  [[nodiscard]] Arena::Scope scope() { return Arena::Scope(device_.arena()); }

  // Copies rows to dense float32 host memory. In planning they are only counted. Divides the work where it converts.
  void copy_to_host(float* host, const ConstMatrixView& view);
  // The other way; rounds to the view's type.
  void copy_to_device(const MatrixView& view, const float* host);
  // Matrices of one shape, of any types and strides.
  void copy(const MatrixView& to, const ConstMatrixView& from);
  // With whatever lies between the rows.
  void fill_zero(const MatrixView& view);

  void linear(const LinearArgs& args);
  void linear_backward(const LinearBackwardArgs& args);
  // Whether `mlp` is there and gains with as many rows.
  bool fuses_mlp(std::int64_t rows) const { return siglip2::fuses_mlp(device_.table(), rows); }
  void mlp(const MlpArgs& args);
  // Whether linear layers take GELU of their input, and its gradient.
  bool fuses_gelu() const { return device_.table().fuses_gelu; }
  void layer_norm(const LayerNormArgs& args);
  void layer_norm_backward(const LayerNormBackwardArgs& args);
  void gelu(const GeluArgs& args);
  void gelu_backward(const GeluBackwardArgs& args);
  void attention(const AttentionArgs& args);
  void attention_backward(const AttentionBackwardArgs& args);
  // Whether `self_attention` is there and gains with such sequences.
  bool fuses_self_attention(const std::int32_t* offsets, std::int64_t sequences) const {
    return siglip2::fuses_self_attention(device_.table(), offsets, sequences);
  }
  void self_attention(const SelfAttentionArgs& args);
  void map_pool(const MapPoolArgs& args);
  void map_pool_backward(const MapPoolBackwardArgs& args);
  void probe_keys_backward(const ProbeKeysBackwardArgs& args);
  void position_embedding(const PositionEmbeddingArgs& args);
  void position_embedding_backward(const PositionEmbeddingBackwardArgs& args);
  void token_embedding(const TokenEmbeddingArgs& args);
  void token_embedding_backward(const TokenEmbeddingBackwardArgs& args);
  void l2_normalize(const L2NormalizeArgs& args);
  void l2_normalize_backward(const L2NormalizeBackwardArgs& args);
  void sigmoid_loss(const SigmoidLossArgs& args);
  void patchify_images(const PatchifyImagesArgs& args);
  void patchify_pixels(const PatchifyPixelsArgs& args);

 private:
  Pass(Device& device, DType activation_type, int threads, const CancelToken& cancel, bool planning);
  static std::size_t make_plan(Device& device, DType activation_type, const std::function<void(Pass&)>& body);

  MatrixView allocate_rows(DType type, std::int64_t rows, std::int64_t columns, std::int64_t stride);
  // Runs one operation of the table; in a plan only where that counts its memory.
  template <typename Args>
  void run_operation(void (*operation)(const OpTable&, OpContext&, const Args&), const Args& args);

  Device& device_;
  DType activation_type_;
  OpContext context_;
  const CancelToken& cancel_;
  bool planning_;
  bool training_ = false;
  // What the results will take in host memory, counted in planning.
  std::size_t result_bytes_ = 0;
};

}  // namespace siglip2
