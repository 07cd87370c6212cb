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

class TextTower {
 public:
  TextTower(const TextConfig& config, Device& device, std::shared_ptr<const Checkpoint> checkpoint, int threads,
            std::shared_ptr<const CancelToken> cancel);

  const TextConfig& config() const { return config_; }
  std::size_t weight_bytes() const { return parameters_.bytes(); }

  // ids [texts, length]. Runs on the device's executor thread. Throws ERR_SIGLIP_SHAPE for ids outside the vocabulary
  // or more positions than were learned, ERR_SIGLIP_CHECKPOINT when the file has lost the token table, and what
  // Pass::run throws.
  TextResult forward(Device& device, const std::vector<std::int32_t>& ids, std::int64_t length,
                     const TextRequest& request, int threads, const CancelToken& cancel) const;

 private:
  TextConfig config_;
  // Held because the token table, by far the largest parameter, is read in place.
  std::shared_ptr<const Checkpoint> checkpoint_;
  Parameters parameters_;
  ConstMatrixView token_table_;
  const float* position_table_ = nullptr;
  Encoder encoder_;
  LayerNormWeights final_layer_norm_;
  LinearWeights head_;
};

}  // namespace siglip2
