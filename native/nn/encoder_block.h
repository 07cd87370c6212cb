// The transformer block of both towers (pre-norm, no mask, no dropout):
//
//   h = x + out_proj(attention(q, k, v)),  q, k, v = {q,k,v}_proj(layer_norm1(x))
//   y = h + fc2(gelu_tanh(fc1(layer_norm2(h))))
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "nn/parameters.h"
#include "nn/pass.h"

namespace siglip2 {

struct EncoderSize {
  std::int64_t width = 0;
  std::int64_t layers = 0;
  int heads = 1;
  std::int64_t intermediate = 0;
  float epsilon = 1e-6f;
};

// Sequences of packed tokens: prefix sums with `sequences() + 1` entries.
struct Offsets {
  std::vector<std::int32_t> values{0};
  std::int64_t sequences() const { return static_cast<std::int64_t>(values.size()) - 1; }
  std::int64_t tokens() const { return values.back(); }
  std::int64_t length(std::int64_t sequence) const {
    return values[static_cast<std::size_t>(sequence) + 1] - values[static_cast<std::size_t>(sequence)];
  }
  // Appends a sequence. Throws ERR_SIGLIP_SHAPE when the tokens no longer fit 32 bits.
  void append(std::int64_t length);
};

// Linear, GELU, linear: the MLP of a block and of the pooling head.
struct Mlp {
  LinearWeights fc1;
  LinearWeights fc2;

  static Mlp load(Parameters& parameters, const std::string& name, std::int64_t width, std::int64_t intermediate);
  // output = residual + fc2(gelu_tanh(fc1(input))); output may be the residual.
  void forward(Pass& pass, const ConstMatrixView& input, const ConstMatrixView& residual,
               const MatrixView& output) const;
};

struct EncoderBlock {
  LayerNormWeights layer_norm1;
  LinearWeights query_key_value;
  LinearWeights out_proj;
  LayerNormWeights layer_norm2;
  Mlp mlp;

  static EncoderBlock load(Parameters& parameters, const std::string& name, const EncoderSize& size);
  // Replaces tokens [Σ tokens, width] by the block's output.
  void forward(Pass& pass, const EncoderSize& size, const Offsets& offsets, const MatrixView& tokens) const;
};

// Where a tower's per-layer states go, when they are asked for: the embeddings and then every block's output.
class HiddenStates {
 public:
  virtual ~HiddenStates() = default;
  // `index` 0 is the embeddings. Returns false when later layers are not needed.
  virtual bool collect(Pass& pass, std::int64_t index, const ConstMatrixView& tokens) = 0;
};

struct Encoder {
  EncoderSize size;
  std::vector<EncoderBlock> blocks;

  static Encoder load(Parameters& parameters, const std::string& name, const EncoderSize& size);
  // Runs every block in place; false when `states` asked to stop early.
  bool forward(Pass& pass, const Offsets& offsets, const MatrixView& tokens, HiddenStates* states) const;
};

}  // namespace siglip2
