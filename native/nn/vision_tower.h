// The image tower: patch embedding + position embedding, encoder, final layer norm, multihead attention pooling head.
#pragma once

#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "nn/encoder_block.h"
#include "nn/parameters.h"
#include "nn/pass.h"

namespace siglip2 {

struct VisionConfig {
  EncoderSize encoder;
  int patch_size = 16;
  // The learned position table: a grid of this many rows and columns.
  std::int64_t grid = 16;
  // Fixed resolution: the patch embedding is stored as a convolution [width, 3, p, p], and images have one size.
  // NaFlex: stored as a linear layer [width, 3p²], and every image has its own grid.
  bool fixed_resolution = false;
  std::int64_t image_size = 0;  // fixed resolution only
  bool has_head = true;
};

// Decoded images, to be resized, normalised and cut into patches.
struct DecodedImages {
  std::vector<std::vector<std::uint8_t>> storage;
  std::vector<ImageView> images;
  std::vector<std::int32_t> target_sizes;  // [images, 2]: height, width in pixels
  PatchifyImagesArgs processing;           // rescale, mean, deviation, mode, filter; the rest is filled in here
};

// Normalised pixels [images, 3, height, width].
struct PixelValues {
  std::vector<float> values;
  std::int64_t images = 0;
  std::int64_t height = 0;
  std::int64_t width = 0;
};

// Patches of all images, packed without padding: [Σ rows·columns, 3p²].
struct PackedPatches {
  std::vector<float> values;
  std::vector<std::int32_t> spatial_shapes;  // [images, 2]: rows, columns of patches
};

using VisionInput = std::variant<DecodedImages, PixelValues, PackedPatches>;

struct VisionRequest {
  bool pooled = true;
  bool normalize = false;  // the pooled features, to unit length
  bool last_hidden_state = false;
  bool hidden_states = false;  // embeddings and every block's output
  int layer = -1;              // ≥ 0: only this entry of the hidden states, and nothing after it is computed
};

// All results are packed rows: [images, width] pooled, [Σ patches, width] states.
struct VisionResult {
  std::vector<std::int32_t> spatial_shapes;
  std::vector<float> pooled;
  std::vector<float> last_hidden_state;
  std::vector<std::vector<float>> hidden_states;
  std::size_t activation_bytes = 0;
};

class VisionTower {
 public:
  VisionTower(const VisionConfig& config, Device& device, const Checkpoint& checkpoint, int threads,
              std::shared_ptr<const CancelToken> cancel);

  const VisionConfig& config() const { return config_; }
  std::size_t weight_bytes() const { return parameters_.bytes(); }

  // Runs on the device's executor thread. Throws ERR_SIGLIP_SHAPE for input that does not fit the tower,
  // ERR_SIGLIP_UNSUPPORTED for pooled features of a tower without head, and what Pass::run throws.
  VisionResult forward(Device& device, const VisionInput& input, const VisionRequest& request, int threads,
                       const CancelToken& cancel) const;

 private:
  struct Head {
    const float* probe_keys = nullptr;
    const float* value_weight = nullptr;
    const float* value_bias = nullptr;
    LinearWeights out_proj;
    LayerNormWeights layer_norm;
    Mlp mlp;
  };

  void load_patch_embedding();
  void load_head();
  std::vector<std::int32_t> spatial_shapes(const VisionInput& input) const;
  MatrixView embed(Pass& pass, const VisionInput& input, const std::vector<std::int32_t>& shapes,
                   std::int64_t tokens) const;
  void pool(Pass& pass, const MatrixView& tokens, const Offsets& offsets, const VisionRequest& request,
            VisionResult& result) const;

  VisionConfig config_;
  Parameters parameters_;
  LinearWeights patch_embedding_;
  const float* position_table_ = nullptr;
  Encoder encoder_;
  LayerNormWeights post_layernorm_;
  Head head_;
};

}  // namespace siglip2
