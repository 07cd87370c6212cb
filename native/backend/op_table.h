// A backend is this table. Every device fills all of it: the CPU inside the addon, CUDA and its emulation as shared
// libraries opened at run time, and the double-precision oracles of the tests as the device "reference".
//
// Contracts (shapes, layout, overwrite or accumulate, precision, formula) stand in ops/NAME/NAME.h. Functions throw
// siglip2::Error and return when their work is queued in order on the context's stream (on CPUs: when it is done).
// Arguments have been checked by the function of the same name that dispatches here (ops/NAME/NAME.cc).
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"
#include "tensor/matrix_view.h"

namespace siglip2 {

// What an operation may use while it runs.
struct OpContext {
  int threads = 1;         // CPU: most threads that one operation may use
  void* device = nullptr;  // GPU: the device's state, from its library
  bool planning = false;   // GPU: count scratch memory, start nothing; see nn/pass.h
};

struct PackWeightArgs;
struct LinearArgs;
struct LinearBackwardArgs;
struct LayerNormArgs;
struct LayerNormBackwardArgs;
struct GeluArgs;
struct GeluBackwardArgs;
struct MlpArgs;
struct AttentionArgs;
struct AttentionBackwardArgs;
struct SelfAttentionArgs;
struct MapPoolArgs;
struct MapPoolBackwardArgs;
struct ProbeKeysArgs;
struct ProbeKeysBackwardArgs;
struct PositionEmbeddingArgs;
struct PositionEmbeddingBackwardArgs;
struct TokenEmbeddingArgs;
struct TokenEmbeddingBackwardArgs;
struct L2NormalizeArgs;
struct L2NormalizeBackwardArgs;
struct SigmoidLossArgs;
struct AdamArgs;
struct SumOfSquaresArgs;
struct ConvertArgs;
struct PatchifyImagesArgs;
struct PatchifyPixelsArgs;

struct OpTable {
  const char* name;  // "cpu", "reference", "cuda", "simt"

  // Element types that activations may have on this device: bit static_cast<int>(DType).
  std::uint32_t activation_types;
  // Types that weights may be packed in beside float32 activations, other than float32.
  std::uint32_t weight_types;
  // Whether what products in bfloat16 round anyway may lie in memory as bfloat16 beside float32 activations: operands
  // of linear layers, of attention and of their gradients, and what layer norms, linear layers and gradients of
  // attention write for them.
  bool rounded_operands;
  // Whether device memory is memory of the host, so that the host's may be given to operations as it is.
  bool host_memory;
  // Whether linear layers take GELU of their input and the gradient of one: LinearArgs::input_activation,
  // pre_activation.
  bool fuses_gelu;

  // Memory. `allocate` returns memory aligned to 64 bytes or throws ERR_SIGLIP_OUT_OF_MEMORY with requested and free
  // bytes; `device` is OpContext::device. Copies are in order with queued work and complete on return.
  void* (*allocate)(void* device, std::size_t bytes);
  void (*release)(void* device, void* memory) noexcept;
  void (*copy_to_device)(OpContext&, void* device, const void* host, std::size_t bytes);
  void (*copy_to_host)(OpContext&, void* host, const void* device, std::size_t bytes);
  void (*copy_on_device)(OpContext&, void* to, const void* from, std::size_t bytes);
  void (*fill_zero)(OpContext&, void* device, std::size_t bytes);

  // Memory that operations need only while they run; null on devices that need none. After `start_planning`, operations
  // whose context says so are counted instead of run; `start_running` makes the memory for the most that one of them
  // needed, or throws ERR_SIGLIP_OUT_OF_MEMORY.
  void (*start_planning)(void* device);
  void (*start_running)(void* device);
  std::size_t (*planned_bytes)(void* device);
  // Around the running of a pass, or of each part of one, so that a device may know the work again and start it as a
  // whole; null on the host. What is between them may throw, and then `abandon_pass` ends it: work may be lost that was
  // not waited for.
  void (*begin_pass)(void* device);
  void (*end_pass)(void* device);
  void (*abandon_pass)(void* device) noexcept;

  // ops/linear
  std::size_t (*packed_weight_bytes)(std::int64_t out_features, std::int64_t in_features, DType dtype);
  void (*pack_weight)(OpContext&, const PackWeightArgs&);
  void (*linear)(OpContext&, const LinearArgs&);
  void (*linear_backward)(OpContext&, const LinearBackwardArgs&);
  // Null on devices without.
  void (*mlp)(OpContext&, const MlpArgs&);

  void (*layer_norm)(OpContext&, const LayerNormArgs&);
  void (*layer_norm_backward)(OpContext&, const LayerNormBackwardArgs&);
  void (*gelu)(OpContext&, const GeluArgs&);
  void (*gelu_backward)(OpContext&, const GeluBackwardArgs&);
  void (*attention)(OpContext&, const AttentionArgs&);
  void (*attention_backward)(OpContext&, const AttentionBackwardArgs&);
  // Null on devices without.
  void (*self_attention)(OpContext&, const SelfAttentionArgs&);

  // ops/map_pool
  void (*map_pool)(OpContext&, const MapPoolArgs&);
  void (*map_pool_backward)(OpContext&, const MapPoolBackwardArgs&);
  void (*probe_keys)(OpContext&, const ProbeKeysArgs&);
  void (*probe_keys_backward)(OpContext&, const ProbeKeysBackwardArgs&);

  void (*position_embedding)(OpContext&, const PositionEmbeddingArgs&);
  void (*position_embedding_backward)(OpContext&, const PositionEmbeddingBackwardArgs&);
  void (*token_embedding)(OpContext&, const TokenEmbeddingArgs&);
  void (*token_embedding_backward)(OpContext&, const TokenEmbeddingBackwardArgs&);
  void (*l2_normalize)(OpContext&, const L2NormalizeArgs&);
  void (*l2_normalize_backward)(OpContext&, const L2NormalizeBackwardArgs&);

  void (*sigmoid_loss)(OpContext&, const SigmoidLossArgs&);
  // `count` parameters or arrays at a time, so that a device may take them in one sweep.
  void (*adam)(OpContext&, const AdamArgs* parameters, std::int64_t count);
  void (*sum_of_squares)(OpContext&, const SumOfSquaresArgs* arrays, std::int64_t count);

  void (*convert)(OpContext&, const ConvertArgs&);

  // ops/patchify
  void (*patchify_images)(OpContext&, const PatchifyImagesArgs&);
  void (*patchify_pixels)(OpContext&, const PatchifyPixelsArgs&);
};

}  // namespace siglip2
