// The text tower: token + position embedding, encoder without any mask, final layer norm, last position, linear head.
#pragma once

#include <vector>

#include "nn/encoder_block.h"
#include "nn/parameters.h"
#include "nn/pass.h"

namespace siglip2 {

struct TextConfig {
  EncoderSize encoder;
  std::int64_t vocabulary = 0;
  std::int64_t positions = 64;
  std::int64_t projection = 0;
};

struct TextRequest {
  bool pooled = true;
  bool normalize = false;
  bool last_hidden_state = false;
  bool hidden_states = false;
};

// Packed rows: [texts, projection] pooled, [texts·length, width] states.
struct TextResult {
  std::vector<float> pooled;
  std::vector<float> last_hidden_state;
  std::vector<std::vector<float>> hidden_states;
  std::size_t activation_bytes = 0;
};

// Some of a batch's texts: ids [count, length].
struct TextBatch {
  const std::int32_t* ids = nullptr;
  // Training with a token table that is not frozen: the row of its sparse gradient for every id.
  const std::int32_t* slots = nullptr;
  std::int64_t count = 0;
  std::int64_t length = 0;

  Offsets offsets() const;
};

class TextTower {
 public:
  // Takes its weights from `parameters`, which it keeps.
  TextTower(const TextConfig& config, std::shared_ptr<Parameters> parameters);

  const TextConfig& config() const { return config_; }
  std::size_t weight_bytes() const { return weight_bytes_; }

  // ids [texts, length]. Runs on the device's executor thread. Throws ERR_SIGLIP_SHAPE for ids outside the vocabulary
  // or more positions than were learned, ERR_SIGLIP_CHECKPOINT when the file has lost the token table, and what
  // Pass::run throws.
  TextResult forward(Device& device, const std::vector<std::int32_t>& ids, std::int64_t length,
                     const TextRequest& request, int threads, const CancelToken& cancel) const;

  // What training needs of a forward pass.
  struct Activations {
    Offsets offsets;
    Encoder::Activations encoder;
    ConstMatrixView last;  // [texts, width]: the last positions before the final layer norm, rows `length` apart
    MatrixView normed;     // after it
  };

  // Throws ERR_SIGLIP_SHAPE when the ids are not texts of this length, or the length is more than was learned.
  void check(std::int64_t ids, std::int64_t length) const;
  // pooled [texts, projection] = the features of a part of a batch, not normalised.
  void forward(Pass& pass, const TextBatch& batch, const MatrixView& pooled) const;
  // The same, keeping what the backward pass needs.
  void forward(Pass& pass, const TextBatch& batch, const MatrixView& pooled, Activations& kept) const;
  // Adds the parameters' gradients, given that of the features [texts, projection].
  void backward(Pass& pass, const TextBatch& batch, const Activations& kept, const ConstMatrixView& grad_pooled) const;
  // Whether any parameter is to be trained.
  bool trainable() const;
  const TokenTable& token_table() const { return token_table_; }

 private:
  MatrixView embed(Pass& pass, const TextBatch& batch) const;
  void pool(Pass& pass, const ConstMatrixView& last, const MatrixView& normed, const MatrixView& pooled) const;
  bool embedding_trainable() const { return token_table_.gradient != nullptr || position_table_.gradient != nullptr; }

  TextConfig config_;
  std::shared_ptr<Parameters> parameters_;
  std::size_t weight_bytes_ = 0;
  TokenTable token_table_;
  VectorWeights position_table_;
  Encoder encoder_;
  LayerNormWeights final_layer_norm_;
  LinearWeights head_;
};

}  // namespace siglip2
