#include "nn/encoder_block.h"

#include <limits>
#include <utility>

#include "cpu/thread_pool.h"
#include "tensor/error.h"

namespace siglip2 {
namespace {

AttentionInputs attention_of(const EncoderSize& size, const Offsets& offsets, const MatrixView& joint) {
  AttentionInputs inputs = joint_attention(joint, size.heads, offsets.values.data(), offsets.sequences());
  inputs.length_bound = offsets.length_bound;
  return inputs;
}

// Forward and backward.
DType product_type_of(const LinearWeights& layer, const ConstMatrixView& tokens) {
  return attention_product_type(tokens.dtype, layer.weight.dtype);
}

}  // namespace

void Offsets::append(std::int64_t length) {
  const std::int64_t total = tokens() + length;
  if (length < 0 || total > std::numeric_limits<std::int32_t>::max())
    throw Error(kErrorShape, "a batch may hold at most 2147483647 tokens");
  values.push_back(static_cast<std::int32_t>(total));
}

std::vector<SequenceGroup> group_sequences(const Pass& pass, const Offsets& offsets, std::int64_t rows) {
  constexpr std::int64_t kTokensOfCore = 448;
  // The same answer for the plan of a pass and for the pass, whatever happens to the process's cores between them.
  static const std::int64_t most = kTokensOfCore * cpu::available_cores();
  if (!pass.on_host() || rows <= most) return {{0, rows, offsets}};
  const std::int64_t count = (rows + most - 1) / most;
  std::vector<SequenceGroup> groups;
  for (const SequenceBlock& block : cut_sequences(offsets.values.data(), offsets.sequences(), count)) {
    SequenceGroup group = {block.first_row, block.rows, {}};
    for (std::int64_t sequence = block.first; sequence < block.end; ++sequence)
      group.offsets.append(offsets.length(sequence));
    groups.push_back(std::move(group));
  }
  return groups;
}

void backward(Pass& pass, const LinearWeights& layer, const ConstMatrixView& input, const ConstMatrixView& grad_output,
              const MatrixView& grad_input, Activation input_activation) {
  if (layer.grad_weight != nullptr)
    pass.linear_backward(
        {input, grad_output, layer.grad_weight, layer.grad_bias, layer.weight.dtype, input_activation});
  if (grad_input.data == nullptr) return;
  const ConstMatrixView pre_activation = input_activation == Activation::kNone ? ConstMatrixView{} : input;
  pass.linear(
      {grad_output, layer.transposed, nullptr, Activation::kNone, {}, grad_input, Activation::kNone, pre_activation});
}

void backward(Pass& pass, const LayerNormWeights& layer, float epsilon, const ConstMatrixView& input,
              const ConstMatrixView& grad_output, const MatrixView& grad_input, bool accumulate) {
  const Arena::Scope scope = pass.scope();
  const MatrixView statistics = pass.allocate_float(input.rows, 2);
  pass.layer_norm_backward({input, layer.weight, epsilon, grad_output, grad_input, accumulate, layer.grad_weight,
                            layer.grad_bias, statistics});
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

void Mlp::expand(Pass& pass, const ConstMatrixView& input, const MatrixView& pre_activation) const {
  pass.linear({input, fc1.weight, fc1.bias, Activation::kNone, {}, pre_activation});
}

void Mlp::contract(Pass& pass, const ConstMatrixView& pre_activation, const ConstMatrixView& residual,
                   const MatrixView& output) const {
  if (pass.fuses_gelu())
    return pass.linear(
        {pre_activation, fc2.weight, fc2.bias, Activation::kNone, residual, output, Activation::kGeluTanh});
  const Arena::Scope scope = pass.scope();
  const MatrixView hidden = pass.allocate(pre_activation.rows, pre_activation.columns);
  pass.gelu({pre_activation, hidden});
  pass.linear({hidden, fc2.weight, fc2.bias, Activation::kNone, residual, output});
}

void Mlp::backward(Pass& pass, const ConstMatrixView& input, const ConstMatrixView& pre_activation,
                   const ConstMatrixView& grad_output, const MatrixView& grad_input) const {
  const Arena::Scope scope = pass.scope();
  const MatrixView hidden = pass.allocate_operand(input.rows, fc1.weight.out_features, fc1.weight.dtype);
  if (pass.fuses_gelu()) {
    siglip2::backward(pass, fc2, pre_activation, grad_output, hidden, Activation::kGeluTanh);
  } else {
    // First the activation, for the gradient of fc2's weight; then its gradient.
    if (fc2.grad_weight != nullptr) pass.gelu({pre_activation, hidden});
    siglip2::backward(pass, fc2, hidden, grad_output, {});
    pass.linear({grad_output, fc2.transposed, nullptr, Activation::kNone, {}, hidden});
    pass.gelu_backward({pre_activation, hidden, hidden});
  }
  siglip2::backward(pass, fc1, input, hidden, grad_input);
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

bool EncoderBlock::keeps_normed(const Pass& pass) const {
  return pass.rounds_operands(query_key_value.weight.dtype);
}

bool EncoderBlock::trainable() const {
  return layer_norm1.grad_weight != nullptr || query_key_value.grad_weight != nullptr ||
         out_proj.grad_weight != nullptr || layer_norm2.grad_weight != nullptr || mlp.trainable();
}

void EncoderBlock::attend(Pass& pass, const EncoderSize& size, const std::vector<SequenceGroup>& groups,
                          const MatrixView& tokens) const {
  for (const SequenceGroup& group : groups) {
    const Arena::Scope scope = pass.scope();
    const MatrixView rows = tokens.slice_rows(group.first_row, group.rows);
    const MatrixView normed = pass.allocate(rows.rows, size.width);
    const MatrixView joint = pass.allocate(rows.rows, 3 * size.width);
    pass.layer_norm({rows, layer_norm1.weight, layer_norm1.bias, size.epsilon, normed});
    pass.linear({normed, query_key_value.weight, query_key_value.bias, Activation::kNone, {}, joint});
    // The output takes the place of the normed tokens, which have been consumed.
    pass.attention({attention_of(size, group.offsets, joint), normed, {}, product_type_of(query_key_value, rows)});
    pass.linear({normed, out_proj.weight, out_proj.bias, Activation::kNone, rows, rows});
  }
}

void EncoderBlock::forward(Pass& pass, const EncoderSize& size, const Offsets& offsets,
                           const std::vector<SequenceGroup>& groups, const MatrixView& tokens) const {
  if (pass.training() && keeps_normed(pass)) {
    // What the backward pass differentiates rounds where this one would not.
    const Arena::Scope scope = pass.scope();
    const Activations made = allocate(pass, size, tokens);
    forward(pass, size, offsets, made);
    return mlp.contract(pass, made.pre_activation, made.middle, tokens);
  }
  if (groups.empty()) {
    pass.self_attention({tokens,
                         {layer_norm1.weight, layer_norm1.bias, size.epsilon},
                         query_key_value.weight,
                         query_key_value.bias,
                         out_proj.weight,
                         out_proj.bias,
                         offsets.values.data(),
                         offsets.sequences(),
                         size.heads,
                         tokens,
                         tokens});
  } else {
    attend(pass, size, groups, tokens);
  }
  if (pass.fuses_mlp(tokens.rows)) {
    pass.mlp({tokens,
              {layer_norm2.weight, layer_norm2.bias, size.epsilon},
              mlp.fc1.weight,
              mlp.fc1.bias,
              mlp.fc2.weight,
              mlp.fc2.bias,
              tokens,
              tokens});
    return;
  }
  const Arena::Scope scope = pass.scope();
  const MatrixView normed = pass.allocate(tokens.rows, size.width);
  pass.layer_norm({tokens, layer_norm2.weight, layer_norm2.bias, size.epsilon, normed});
  mlp.forward(pass, normed, tokens, tokens);
}

EncoderBlock::Activations EncoderBlock::allocate(Pass& pass, const EncoderSize& size,
                                                 const ConstMatrixView& input) const {
  const DType products = query_key_value.weight.dtype;
  Activations kept;
  kept.input = input;
  if (keeps_normed(pass)) {
    kept.normed1 = pass.allocate_operand(input.rows, size.width, products);
    kept.normed2 = pass.allocate_operand(input.rows, size.width, products);
  }
  kept.joint = pass.allocate_operand(input.rows, 3 * size.width, products);
  kept.attended = pass.allocate_operand(input.rows, size.width, products);
  kept.log_sum_exp = pass.allocate_float(input.rows, size.heads);
  kept.middle = pass.allocate(input.rows, size.width);
  kept.pre_activation = pass.allocate_operand(input.rows, size.intermediate, products);
  return kept;
}

void EncoderBlock::forward(Pass& pass, const EncoderSize& size, const Offsets& offsets, const Activations& kept) const {
  const Arena::Scope scope = pass.scope();
  MatrixView normed1 = kept.normed1, normed2 = kept.normed2;
  if (!keeps_normed(pass)) normed1 = normed2 = pass.allocate(kept.input.rows, size.width);
  pass.layer_norm({kept.input, layer_norm1.weight, layer_norm1.bias, size.epsilon, normed1});
  pass.linear({normed1, query_key_value.weight, query_key_value.bias, Activation::kNone, {}, kept.joint});
  pass.attention({attention_of(size, offsets, kept.joint), kept.attended, kept.log_sum_exp,
                  product_type_of(query_key_value, kept.input)});
  pass.linear({kept.attended, out_proj.weight, out_proj.bias, Activation::kNone, kept.input, kept.middle});

  pass.layer_norm({kept.middle, layer_norm2.weight, layer_norm2.bias, size.epsilon, normed2});
  mlp.expand(pass, normed2, kept.pre_activation);
}

void EncoderBlock::backward(Pass& pass, const EncoderSize& size, const Offsets& offsets, const Activations& kept,
                            const MatrixView& grad) const {
  const Arena::Scope scope = pass.scope();
  const bool again = !keeps_normed(pass);
  MatrixView normed1 = kept.normed1, normed2 = kept.normed2;
  if (again) normed1 = normed2 = pass.allocate(grad.rows, size.width);
  const MatrixView grad_normed = pass.allocate(grad.rows, size.width);

  if (again && mlp.fc1.grad_weight != nullptr)
    pass.layer_norm({kept.middle, layer_norm2.weight, layer_norm2.bias, size.epsilon, normed2});
  mlp.backward(pass, normed2, kept.pre_activation, grad, grad_normed);
  siglip2::backward(pass, layer_norm2, size.epsilon, kept.middle, grad_normed, grad, true);

  const MatrixView grad_attended = pass.allocate_operand(grad.rows, size.width, out_proj.weight.dtype);
  siglip2::backward(pass, out_proj, kept.attended, grad, grad_attended);
  const MatrixView grad_joint = pass.allocate_operand(grad.rows, 3 * size.width, query_key_value.weight.dtype);
  pass.attention_backward({attention_of(size, offsets, kept.joint), kept.attended, kept.log_sum_exp, grad_attended,
                           grad_joint.slice_columns(0, size.width), grad_joint.slice_columns(size.width, size.width),
                           grad_joint.slice_columns(2 * size.width, size.width),
                           product_type_of(query_key_value, kept.input)});

  if (again && query_key_value.grad_weight != nullptr)
    pass.layer_norm({kept.input, layer_norm1.weight, layer_norm1.bias, size.epsilon, normed1});
  siglip2::backward(pass, query_key_value, normed1, grad_joint, grad_normed);
  siglip2::backward(pass, layer_norm1, size.epsilon, kept.input, grad_normed, grad, true);
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
  const bool fused = pass.fuses_self_attention(offsets.values.data(), offsets.sequences());
  const auto groups = fused ? std::vector<SequenceGroup>() : group_sequences(pass, offsets, tokens.rows);
  for (std::size_t layer = 0; layer < blocks.size(); ++layer) {
    blocks[layer].forward(pass, size, offsets, groups, tokens);
    if (states != nullptr && !states->collect(pass, static_cast<std::int64_t>(layer) + 1, tokens)) return false;
  }
  return true;
}

MatrixView Encoder::forward(Pass& pass, const Offsets& offsets, const MatrixView& tokens, Activations& kept) const {
  MatrixView current = tokens;
  for (const EncoderBlock& block : blocks) {
    const MatrixView output = pass.allocate(tokens.rows, size.width);
    kept.inputs.push_back(current);
    const auto forward = [&](const EncoderBlock::Activations& activations) {
      block.forward(pass, size, offsets, activations);
      block.mlp.contract(pass, activations.pre_activation, activations.middle, output);
    };
    if (kept.checkpointing) {
      // The same operations, since those of inference round otherwise: their GELU is shorter beside narrow weights.
      const Arena::Scope scope = pass.scope();
      forward(block.allocate(pass, size, current));
    } else {
      kept.blocks.push_back(block.allocate(pass, size, current));
      forward(kept.blocks.back());
    }
    current = output;
  }
  return current;
}

void Encoder::backward(Pass& pass, const Offsets& offsets, const Activations& kept, const MatrixView& grad,
                       bool need_input) const {
  std::size_t lowest = 0;
  while (!need_input && lowest < blocks.size() && !blocks[lowest].trainable())
    ++lowest;
  for (std::size_t layer = blocks.size(); layer-- > lowest;) {
    if (!kept.checkpointing) {
      blocks[layer].backward(pass, size, offsets, kept.blocks[layer], grad);
      continue;
    }
    const Arena::Scope scope = pass.scope();
    const auto again = blocks[layer].allocate(pass, size, kept.inputs[layer]);
    blocks[layer].forward(pass, size, offsets, again);
    blocks[layer].backward(pass, size, offsets, again, grad);
  }
}

bool Encoder::trainable() const {
  for (const EncoderBlock& block : blocks)
    if (block.trainable()) return true;
  return false;
}

}  // namespace siglip2
