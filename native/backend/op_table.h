// A backend is this table. Every device fills all of it: the CPU inside the addon, CUDA and its emulation as shared
// libraries opened at run time, and the double-precision oracles of the tests as the device "reference".
//
// Contracts (shapes, layout, overwrite or accumulate, precision, formula) stand in ops/NAME/NAME.h. Functions throw
// siglip2::Error and return when their work is queued in order on the context's stream (on CPUs: when it is done).
// Arguments have been checked by the function of the same name that dispatches here (ops/NAME/NAME.cc).
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/matrix_view.h"

namespace siglip2 {

// What an operation may use while it runs.
struct OpContext {
  int threads = 1;         // CPU: most threads that one operation may use
  void* stream = nullptr;  // GPU: the stream that work is queued on
};

struct PackWeightArgs;
struct LinearArgs;
struct LayerNormArgs;
struct GeluArgs;
struct AttentionArgs;
struct MapPoolArgs;
struct PositionEmbeddingArgs;
struct TokenEmbeddingArgs;
struct L2NormalizeArgs;
struct PatchifyImagesArgs;
struct PatchifyPixelsArgs;

struct OpTable {
  const char* name;  // "cpu", "reference", "cuda", "simt"

  // Memory. `allocate` returns memory aligned to 64 bytes or throws ERR_SIGLIP_OUT_OF_MEMORY with requested and free
  // bytes. Copies are in order with queued work and complete on return.
  void* (*allocate)(std::size_t bytes);
  void (*release)(void* memory) noexcept;
  void (*copy_to_device)(OpContext&, void* device, const void* host, std::size_t bytes);
  void (*copy_to_host)(OpContext&, void* host, const void* device, std::size_t bytes);
  void (*fill_zero)(OpContext&, void* device, std::size_t bytes);

  // ops/linear
  std::size_t (*packed_weight_bytes)(std::int64_t out_features, std::int64_t in_features);
  void (*pack_weight)(OpContext&, const PackWeightArgs&);
  void (*linear)(OpContext&, const LinearArgs&);

  void (*layer_norm)(OpContext&, const LayerNormArgs&);
  void (*gelu)(OpContext&, const GeluArgs&);
  void (*attention)(OpContext&, const AttentionArgs&);
  void (*map_pool)(OpContext&, const MapPoolArgs&);
  void (*position_embedding)(OpContext&, const PositionEmbeddingArgs&);
  void (*token_embedding)(OpContext&, const TokenEmbeddingArgs&);
  void (*l2_normalize)(OpContext&, const L2NormalizeArgs&);

  // ops/patchify
  void (*patchify_images)(OpContext&, const PatchifyImagesArgs&);
  void (*patchify_pixels)(OpContext&, const PatchifyPixelsArgs&);
};

}  // namespace siglip2
