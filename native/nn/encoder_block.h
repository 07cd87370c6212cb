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

// Sequences of packed tokens: prefix sums with `sequences() + 1` entries. With a bound of their lengths the matrices of
// a pass may have more rows than tokens (see nn/token_bucket.h).
struct Offsets {
  std::vector<std::int32_t> values{0};
  std::int64_t length_bound = 0;  // that of AttentionInputs
  std::int64_t sequences() const { return static_cast<std::int64_t>(values.size()) - 1; }
  std::int64_t tokens() const { return values.back(); }
  std::int64_t length(std::int64_t sequence) const {
    return values[static_cast<std::size_t>(sequence) + 1] - values[static_cast<std::size_t>(sequence)];
  }
  // Appends a sequence. Throws ERR_SIGLIP_SHAPE when the tokens no longer fit 32 bits.
  void append(std::int64_t length);
};

// Sequences that go through a part of a tower together, and their rows of the batch's matrix.
struct SequenceGroup {
  std::int64_t first_row;
  std::int64_t rows;
  Offsets offsets;  // from the group's first row
};

// All sequences of a batch in groups, in order: on the host a few at a time, since what is made on the way (patches, or
// queries, keys and values, three times the size of the tokens) takes memory, and should be in a cache when it is used;
// on GPUs one group.
std::vector<SequenceGroup> group_sequences(const Pass& pass, const Offsets& offsets, std::int64_t rows);

// Gradients of one layer from the gradient of its output. `grad_input` is overwritten; without memory it is not wanted.
// With an activation (Pass::fuses_gelu), `input` is what comes before it, and so is what `grad_input` is the gradient
// of.
void backward(Pass& pass, const LinearWeights& layer, const ConstMatrixView& input, const ConstMatrixView& grad_output,
              const MatrixView& grad_input, Activation input_activation = Activation::kNone);
// `grad_input` is overwritten, or added to: then it holds the gradient that bypasses the layer.
void backward(Pass& pass, const LayerNormWeights& layer, float epsilon, const ConstMatrixView& input,
              const ConstMatrixView& grad_output, const MatrixView& grad_input, bool accumulate);

// Linear, GELU, linear: the MLP of a block and of the pooling head.
struct Mlp {
  LinearWeights fc1;
  LinearWeights fc2;

  static Mlp load(Parameters& parameters, const std::string& name, std::int64_t width, std::int64_t intermediate);
  // output = residual + fc2(gelu_tanh(fc1(input))); output may be the residual.
  void forward(Pass& pass, const ConstMatrixView& input, const ConstMatrixView& residual,
               const MatrixView& output) const;
  // The same in two steps, keeping pre_activation = fc1(input) [rows, intermediate] for the backward pass.
  void expand(Pass& pass, const ConstMatrixView& input, const MatrixView& pre_activation) const;
  void contract(Pass& pass, const ConstMatrixView& pre_activation, const ConstMatrixView& residual,
                const MatrixView& output) const;
  // grad_input, overwritten, is the gradient through the MLP alone; the residual's is grad_output itself.
  void backward(Pass& pass, const ConstMatrixView& input, const ConstMatrixView& pre_activation,
                const ConstMatrixView& grad_output, const MatrixView& grad_input) const;
  bool trainable() const { return fc1.grad_weight != nullptr || fc2.grad_weight != nullptr; }
};

struct EncoderBlock {
  LayerNormWeights layer_norm1;
  LinearWeights query_key_value;
  LinearWeights out_proj;
  LayerNormWeights layer_norm2;
  Mlp mlp;

  // What the backward pass needs of the forward pass; GELUs and most layer norms are computed again from it.
  struct Activations {
    ConstMatrixView input;   // [Σ tokens, width], the caller's
    MatrixView normed1;      // [Σ tokens, width] and normed2, if the block keeps them
    MatrixView joint;        // [Σ tokens, 3·width]: query, key, value
    MatrixView attended;     // [Σ tokens, width]
    MatrixView log_sum_exp;  // [Σ tokens, heads]
    MatrixView middle;       // [Σ tokens, width]: h
    MatrixView normed2;
    MatrixView pre_activation;  // [Σ tokens, intermediate]
  };

  Activations allocate(Pass& pass, const EncoderSize& size, const ConstMatrixView& input) const;
  static EncoderBlock load(Parameters& parameters, const std::string& name, const EncoderSize& size);
  // Replaces tokens [Σ tokens, width] by the block's output. Without groups its first half is one operation
  // (Pass::fuses_self_attention).
  void forward(Pass& pass, const EncoderSize& size, const Offsets& offsets, const std::vector<SequenceGroup>& groups,
               const MatrixView& tokens) const;
  // Fills `kept` for its input; the block's output is then mlp.contract(kept.pre_activation) + kept.middle.
  void forward(Pass& pass, const EncoderSize& size, const Offsets& offsets, const Activations& kept) const;
  // Turns `grad`, the gradient of the block's output, into that of its input, and adds to the parameters' gradients.
  void backward(Pass& pass, const EncoderSize& size, const Offsets& offsets, const Activations& kept,
                const MatrixView& grad) const;
  bool trainable() const;

 private:
  // Whether normed tokens are kept: rounded they take half the memory, and are read as products want them.
  bool keeps_normed(const Pass& pass) const;
  // The first half of `forward`, group by group.
  void attend(Pass& pass, const EncoderSize& size, const std::vector<SequenceGroup>& groups,
              const MatrixView& tokens) const;
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

  // With checkpointing only the blocks' inputs are kept, and the backward pass runs every block's forward pass again.
  struct Activations {
    bool checkpointing = false;
    std::vector<ConstMatrixView> inputs;
    std::vector<EncoderBlock::Activations> blocks;
  };

  static Encoder load(Parameters& parameters, const std::string& name, const EncoderSize& size);
  // Runs every block in place; false when `states` asked to stop early.
  bool forward(Pass& pass, const Offsets& offsets, const MatrixView& tokens, HiddenStates* states) const;
  // Returns the last block's output, and keeps what the backward pass needs; `tokens` must stay as they are until then.
  MatrixView forward(Pass& pass, const Offsets& offsets, const MatrixView& tokens, Activations& kept) const;
  // Turns the gradient of the output into that of the input. Without `need_input` it stops below the lowest block that
  // has a parameter to train, and `grad` means nothing afterwards.
  void backward(Pass& pass, const Offsets& offsets, const Activations& kept, const MatrixView& grad,
                bool need_input) const;
  bool trainable() const;
};

}  // namespace siglip2
