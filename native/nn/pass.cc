#include "nn/pass.h"

#include <limits>

#include "tensor/error.h"

namespace siglip2 {
namespace {

bool is_dense(const ConstMatrixView& view) {
  return view.stride == view.columns || view.rows <= 1;
}

}  // namespace

Pass::Pass(Device& device, DType activation_type, int threads, const CancelToken& cancel, bool planning)
    : device_(device),
      activation_type_(activation_type),
      context_(device.context(threads)),
      cancel_(cancel),
      planning_(planning) {
  context_.planning = planning && device.table().start_planning != nullptr;
}

// Returns the bytes of host memory that the results take.
std::size_t Pass::make_plan(Device& device, DType activation_type, const std::function<void(Pass&)>& body) {
  device.start_planning();
  const CancelToken never;
  Pass plan(device, activation_type, 1, never, true);
  body(plan);
  return plan.result_bytes_;
}

void Pass::run(Device& device, DType activation_type, int threads, const CancelToken& cancel,
               const std::function<void(Pass&)>& body) {
  cancel.check();
  const std::size_t result_bytes = make_plan(device, activation_type, body);
  // Twice: once as the core's result, once as JavaScript's.
  require_host_memory(2 * result_bytes);
  device.start_running();
  Pass pass(device, activation_type, threads, cancel, false);
  device.begin_pass();
  try {
    body(pass);
    device.end_pass();
  } catch (...) {
    device.abandon_pass();
    throw;
  }
}

std::size_t Pass::plan(Device& device, DType activation_type, const std::function<void(Pass&)>& body) {
  make_plan(device, activation_type, body);
  return device.planned_bytes();
}

void Pass::divide() {
  if (planning_) return;
  device_.end_pass();
  device_.begin_pass();
}

MatrixView Pass::allocate_rows(DType type, std::int64_t rows, std::int64_t columns, std::int64_t stride) {
  if (stride != 0 && rows > std::numeric_limits<std::int64_t>::max() / 8 / stride)
    throw Error(kErrorOutOfMemory, "the activations of this batch are larger than the address space");
  void* const memory = device_.arena().allocate(static_cast<std::size_t>(rows * stride) * size_of(type));
  return {memory, type, rows, columns, stride};
}

MatrixView Pass::allocate(std::int64_t rows, std::int64_t columns) {
  // 8 elements are 16 bytes or more.
  const std::int64_t padded = on_host() ? columns : (columns + 7) / 8 * 8;
  return allocate_rows(activation_type_, rows, columns, padded);
}

MatrixView Pass::allocate_operand(std::int64_t rows, std::int64_t columns, DType product_type) {
  if (!rounds_operands(product_type)) return allocate(rows, columns);
  return allocate_rows(DType::kBFloat16, rows, columns, columns);
}

MatrixView Pass::allocate_float(std::int64_t rows, std::int64_t columns) {
  return allocate_rows(DType::kFloat32, rows, columns, columns);
}

void Pass::copy_to_host(float* host, const ConstMatrixView& view) {
  const std::size_t bytes = static_cast<std::size_t>(view.rows * view.columns) * sizeof(float);
  if (planning_) result_bytes_ += bytes;
  const Arena::Scope dense_scope = scope();
  ConstMatrixView dense = view;
  if (!is_dense(view) || view.dtype != DType::kFloat32) {
    divide();
    const MatrixView copied = allocate_float(view.rows, view.columns);
    copy(copied, view);
    dense = copied;
  }
  if (!planning_) device_.table().copy_to_host(context_, host, dense.data, bytes);
}

void Pass::copy_to_device(const MatrixView& view, const float* host) {
  const Arena::Scope dense_scope = scope();
  const bool direct = is_dense(view) && view.dtype == DType::kFloat32;
  const MatrixView dense = direct ? view : allocate_float(view.rows, view.columns);
  if (!planning_)
    device_.table().copy_to_device(context_, dense.data, host,
                                   static_cast<std::size_t>(view.rows * view.columns) * sizeof(float));
  if (!direct) copy(view, dense);
}

void Pass::copy(const MatrixView& to, const ConstMatrixView& from) {
  if (to.dtype != from.dtype || !is_dense(to) || !is_dense(from))
    return run_operation(siglip2::convert, ConvertArgs{from, to});
  if (planning_) return;
  device_.table().copy_on_device(context_, to.data, from.data,
                                 static_cast<std::size_t>(to.rows * to.columns) * size_of(to.dtype));
}

void Pass::fill_zero(const MatrixView& view) {
  if (planning_) return;
  device_.table().fill_zero(context_, view.data,
                            static_cast<std::size_t>(view.rows * view.stride) * size_of(view.dtype));
}

template <typename Args>
void Pass::run_operation(void (*operation)(const OpTable&, OpContext&, const Args&), const Args& args) {
  if (planning_ && !context_.planning) return;
  cancel_.check();
  operation(device_.table(), context_, args);
}

void Pass::linear(const LinearArgs& args) {
  run_operation(siglip2::linear, args);
}
void Pass::linear_backward(const LinearBackwardArgs& args) {
  run_operation(siglip2::linear_backward, args);
}
void Pass::mlp(const MlpArgs& args) {
  run_operation(siglip2::mlp, args);
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
void Pass::self_attention(const SelfAttentionArgs& args) {
  run_operation(siglip2::self_attention, args);
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
