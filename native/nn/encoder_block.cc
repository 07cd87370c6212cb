#include "nn/encoder_block.h"

#include <cmath>
#include <limits>

#include "tensor/error.h"

namespace siglip2 {

void Offsets::append(std::int64_t length) {
  const std::int64_t total = tokens() + length;
  if (length < 0 || total > std::numeric_limits<std::int32_t>::max())
    throw Error(kErrorShape, "a batch may hold at most 2147483647 tokens");
  values.push_back(static_cast<std::int32_t>(total));
}

Mlp Mlp::load(Parameters& parameters, const std::string& name, std::int64_t width, std::int64_t intermediate) {
  return {parameters.linear(name + "fc1", intermediate, width), parameters.linear(name + "fc2", width, intermediate)};
}

void Mlp::forward(Pass& pass, const ConstMatrixView& input, const ConstMatrixView& residual,
                  const MatrixView& output) const {
  const Arena::Scope scope = pass.scope();
  const MatrixView hidden = pass.allocate(input.rows, fc1.weight.out_features);
  pass.linear({input, fc1.weight, fc1.bias, Activation::kGeluTanh, {}, hidden});
  pass.linear({hidden, fc2.weight, fc2.bias, Activation::kNone, residual, output});
}

EncoderBlock EncoderBlock::load(Parameters& parameters, const std::string& name, const EncoderSize& size) {
  EncoderBlock block;
  block.layer_norm1 = parameters.layer_norm(name + "layer_norm1", size.width);
  block.query_key_value =
      parameters.stacked_linear(name + "self_attn.", {"q_proj", "k_proj", "v_proj"}, size.width, size.width);
  block.out_proj = parameters.linear(name + "self_attn.out_proj", size.width, size.width);
  block.layer_norm2 = parameters.layer_norm(name + "layer_norm2", size.width);
  block.mlp = Mlp::load(parameters, name + "mlp.", size.width, size.intermediate);
  return block;
}

void EncoderBlock::forward(Pass& pass, const EncoderSize& size, const Offsets& offsets,
                           const MatrixView& tokens) const {
  const Arena::Scope scope = pass.scope();
  const MatrixView normed = pass.allocate(tokens.rows, size.width);
  pass.layer_norm({tokens, layer_norm1.weight, layer_norm1.bias, size.epsilon, normed});
  {
    const Arena::Scope attention_scope = pass.scope();
    const MatrixView joint = pass.allocate(tokens.rows, 3 * size.width);
    pass.linear({normed, query_key_value.weight, query_key_value.bias, Activation::kNone, {}, joint});

    const auto head_dim = static_cast<int>(size.width / size.heads);
    AttentionArgs attention;
    attention.query = joint.slice_columns(0, size.width);
    attention.key = joint.slice_columns(size.width, size.width);
    attention.value = joint.slice_columns(2 * size.width, size.width);
    attention.query_offsets = offsets.values.data();
    attention.key_offsets = offsets.values.data();
    attention.sequences = offsets.sequences();
    attention.heads = size.heads;
    attention.head_dim = head_dim;
    attention.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim)));
    attention.output = normed;  // its values have been consumed
    pass.attention(attention);
  }
  pass.linear({normed, out_proj.weight, out_proj.bias, Activation::kNone, tokens, tokens});

  pass.layer_norm({tokens, layer_norm2.weight, layer_norm2.bias, size.epsilon, normed});
  mlp.forward(pass, normed, tokens, tokens);
}

Encoder Encoder::load(Parameters& parameters, const std::string& name, const EncoderSize& size) {
  Encoder encoder;
  encoder.size = size;
  for (std::int64_t layer = 0; layer < size.layers; ++layer)
    encoder.blocks.push_back(EncoderBlock::load(parameters, name + "layers." + std::to_string(layer) + ".", size));
  return encoder;
}

bool Encoder::forward(Pass& pass, const Offsets& offsets, const MatrixView& tokens, HiddenStates* states) const {
  if (states != nullptr && !states->collect(pass, 0, tokens)) return false;
  for (std::size_t layer = 0; layer < blocks.size(); ++layer) {
    blocks[layer].forward(pass, size, offsets, tokens);
    if (states != nullptr && !states->collect(pass, static_cast<std::int64_t>(layer) + 1, tokens)) return false;
  }
  return true;
}

}  // namespace siglip2
