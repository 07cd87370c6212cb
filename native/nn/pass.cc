#include "nn/pass.h"

#include <limits>

#include "tensor/error.h"

namespace siglip2 {

Pass::Pass(Device& device, int threads, const CancelToken& cancel, bool planning)
    : device_(device), context_(device.context(threads)), cancel_(cancel), planning_(planning) {}

void Pass::run(Device& device, int threads, const CancelToken& cancel, const std::function<void(Pass&)>& body) {
  cancel.check();
  device.arena().start_planning();
  Pass plan(device, threads, cancel, true);
  body(plan);
  // Twice: once as the core's result, once as JavaScript's.
  require_host_memory(2 * plan.result_bytes_);
  device.arena().start_running();
  Pass pass(device, threads, cancel, false);
  body(pass);
}

std::size_t Pass::plan(Device& device, const std::function<void(Pass&)>& body) {
  device.arena().start_planning();
  const CancelToken never;
  Pass plan(device, 1, never, true);
  body(plan);
  return device.arena().planned();
}

MatrixView Pass::allocate(std::int64_t rows, std::int64_t columns) {
  if (columns != 0 && rows > std::numeric_limits<std::int64_t>::max() / 8 / columns)
    throw Error(kErrorOutOfMemory, "the activations of this batch are larger than the address space");
  void* const memory = device_.arena().allocate(static_cast<std::size_t>(rows * columns) * sizeof(float));
  return {memory, DType::kFloat32, rows, columns, columns};
}

void Pass::copy_to_host(float* host, const ConstMatrixView& view) {
  const auto row_bytes = static_cast<std::size_t>(view.columns) * sizeof(float);
  if (planning_) {
    result_bytes_ += row_bytes * static_cast<std::size_t>(view.rows);
    return;
  }
  if (view.stride == view.columns) {
    device_.table().copy_to_host(context_, host, view.data, row_bytes * static_cast<std::size_t>(view.rows));
    return;
  }
  for (std::int64_t row = 0; row < view.rows; ++row)
    device_.table().copy_to_host(context_, host + row * view.columns, view.as<float>() + row * view.stride, row_bytes);
}

void Pass::copy_to_device(const MatrixView& view, const float* host) {
  if (planning_) return;
  device_.table().copy_to_device(context_, view.data, host,
                                 static_cast<std::size_t>(view.rows * view.columns) * sizeof(float));
}

void Pass::copy(const MatrixView& to, const ConstMatrixView& from) {
  if (planning_) return;
  device_.table().copy_on_device(context_, to.data, from.data,
                                 static_cast<std::size_t>(to.rows * to.columns) * sizeof(float));
}

void Pass::fill_zero(const MatrixView& view) {
  if (planning_) return;
  device_.table().fill_zero(context_, view.data, static_cast<std::size_t>(view.rows * view.columns) * sizeof(float));
}

template <typename Args>
void Pass::run_operation(void (*operation)(const OpTable&, OpContext&, const Args&), const Args& args) {
  if (planning_) return;
  cancel_.check();
  operation(device_.table(), context_, args);
}

void Pass::linear(const LinearArgs& args) {
  run_operation(siglip2::linear, args);
}
void Pass::linear_backward(const LinearBackwardArgs& args) {
  run_operation(siglip2::linear_backward, args);
}
void Pass::layer_norm(const LayerNormArgs& args) {
  run_operation(siglip2::layer_norm, args);
}
void Pass::layer_norm_backward(const LayerNormBackwardArgs& args) {
  run_operation(siglip2::layer_norm_backward, args);
}
void Pass::gelu(const GeluArgs& args) {
  run_operation(siglip2::gelu, args);
}
void Pass::gelu_backward(const GeluBackwardArgs& args) {
  run_operation(siglip2::gelu_backward, args);
}
void Pass::attention(const AttentionArgs& args) {
  run_operation(siglip2::attention, args);
}
void Pass::attention_backward(const AttentionBackwardArgs& args) {
  run_operation(siglip2::attention_backward, args);
}
void Pass::map_pool(const MapPoolArgs& args) {
  run_operation(siglip2::map_pool, args);
}
void Pass::map_pool_backward(const MapPoolBackwardArgs& args) {
  run_operation(siglip2::map_pool_backward, args);
}
void Pass::probe_keys_backward(const ProbeKeysBackwardArgs& args) {
  run_operation(siglip2::probe_keys_backward, args);
}
void Pass::position_embedding(const PositionEmbeddingArgs& args) {
  run_operation(siglip2::position_embedding, args);
}
void Pass::position_embedding_backward(const PositionEmbeddingBackwardArgs& args) {
  run_operation(siglip2::position_embedding_backward, args);
}
void Pass::token_embedding(const TokenEmbeddingArgs& args) {
  run_operation(siglip2::token_embedding, args);
}
void Pass::token_embedding_backward(const TokenEmbeddingBackwardArgs& args) {
  run_operation(siglip2::token_embedding_backward, args);
}
void Pass::l2_normalize(const L2NormalizeArgs& args) {
  run_operation(siglip2::l2_normalize, args);
}
void Pass::l2_normalize_backward(const L2NormalizeBackwardArgs& args) {
  run_operation(siglip2::l2_normalize_backward, args);
}
void Pass::sigmoid_loss(const SigmoidLossArgs& args) {
  run_operation(siglip2::sigmoid_loss, args);
}
void Pass::patchify_images(const PatchifyImagesArgs& args) {
  run_operation(siglip2::patchify_images, args);
}
void Pass::patchify_pixels(const PatchifyPixelsArgs& args) {
  run_operation(siglip2::patchify_pixels, args);
}

}  // namespace siglip2
