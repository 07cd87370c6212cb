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
  std::vector<std::shared_ptr<const std::uint8_t[]>> storage;  // of pixels in host memory
  std::vector<std::shared_ptr<const void>> tensors;            // that hold pixels in device memory
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

// Some of a batch's images: [first, first + count) of `input`, whose grids are spatial_shapes [all images, 2].
struct VisionBatch {
  const VisionInput& input;
  const std::vector<std::int32_t>& spatial_shapes;
  std::int64_t first = 0;
  std::int64_t count = 0;

  Offsets offsets() const;
  const std::int32_t* shapes() const { return spatial_shapes.data() + 2 * first; }
};

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
  // Takes its weights from `parameters`, which it keeps.
  VisionTower(const VisionConfig& config, std::shared_ptr<Parameters> parameters);

  const VisionConfig& config() const { return config_; }
  std::size_t weight_bytes() const { return weight_bytes_; }

  // Runs on the device's executor thread. Throws ERR_SIGLIP_SHAPE for input that does not fit the tower,
  // ERR_SIGLIP_UNSUPPORTED for pooled features of a tower without head, and what Pass::run throws.
  VisionResult forward(Device& device, const VisionInput& input, const VisionRequest& request, int threads,
                       const CancelToken& cancel) const;

  // What training needs of a forward pass.
  struct Activations {
    Offsets offsets;
    MatrixView patches;  // [Σ patches, 3p²]
    Encoder::Activations encoder;
    ConstMatrixView encoded;    // [Σ patches, width], before the final layer norm
    MatrixView normed;          // after it
    MatrixView attended;        // [images, width], of the pooling head
    MatrixView projected;       // [images, width]
    MatrixView pre_activation;  // [images, intermediate]
  };

  // Grid of patches of every image, [images, 2]. Throws ERR_SIGLIP_SHAPE for input that does not fit the tower.
  std::vector<std::int32_t> spatial_shapes(const VisionInput& input) const;
  // pooled [images, width] = the features of a part of a batch, not normalised.
  void forward(Pass& pass, const VisionBatch& batch, const MatrixView& pooled) const;
  // The same, keeping what the backward pass needs.
  void forward(Pass& pass, const VisionBatch& batch, const MatrixView& pooled, Activations& kept) const;
  // Adds the parameters' gradients, given that of the features [images, width], whose memory it uses.
  void backward(Pass& pass, const VisionBatch& batch, const Activations& kept, const MatrixView& grad_pooled) const;
  // Whether any parameter is to be trained.
  bool trainable() const;

 private:
  struct Head {
    PoolingWeights pooling;
    LinearWeights out_proj;
    LayerNormWeights layer_norm;
    Mlp mlp;

    bool trainable() const {
      return pooling.grad_probe != nullptr || out_proj.grad_weight != nullptr || layer_norm.grad_weight != nullptr ||
             mlp.trainable();
    }
  };

  // Fills patches [Σ patches, 3p²].
  void cut_patches(Pass& pass, const VisionBatch& batch, const MatrixView& patches) const;
  void embed(Pass& pass, const VisionBatch& batch, const MatrixView& patches, const MatrixView& embedded) const;
  // Into new rows [≥ Σ patches, width]: more, and with a bound in `offsets`, where the pass takes a bucket of tokens.
  MatrixView embed(Pass& pass, const VisionBatch& batch, Offsets& offsets) const;
  void pool(Pass& pass, const ConstMatrixView& tokens, const Offsets& offsets, const MatrixView& pooled) const;
  void backward_head(Pass& pass, const Activations& kept, const MatrixView& grad_pooled,
                     const MatrixView& grad_tokens) const;
  void backward_pooling(Pass& pass, const Activations& kept, const ConstMatrixView& grad_attended,
                        const MatrixView& grad_tokens) const;
  bool embedding_trainable() const;

  VisionConfig config_;
  std::shared_ptr<Parameters> parameters_;
  std::size_t weight_bytes_ = 0;
  LinearWeights patch_embedding_;
  VectorWeights position_table_;
  Encoder encoder_;
  LayerNormWeights post_layernorm_;
  Head head_;
};

}  // namespace siglip2
