// The image tower in training: forward passes on parts of a batch, and the backward pass.
#include "nn/vision_tower.h"

namespace siglip2 {

void VisionTower::forward(Pass& pass, const VisionBatch& batch, const MatrixView& pooled) const {
  const Arena::Scope scope = pass.scope();
  Offsets offsets = batch.offsets();
  const MatrixView tokens = embed(pass, batch, offsets);
  encoder_.forward(pass, offsets, tokens, nullptr);
  pass.layer_norm({tokens, post_layernorm_.weight, post_layernorm_.bias, config_.encoder.epsilon, tokens});
  pool(pass, tokens, offsets, pooled);
}

void VisionTower::forward(Pass& pass, const VisionBatch& batch, const MatrixView& pooled, Activations& kept) const {
  const std::int64_t width = config_.encoder.width;
  const float epsilon = config_.encoder.epsilon;
  kept.offsets = batch.offsets();
  const std::int64_t tokens = kept.offsets.tokens();
  kept.patches = pass.allocate(tokens, std::int64_t{3} * config_.patch_size * config_.patch_size);
  const MatrixView embedded = pass.allocate(tokens, width);
  embed(pass, batch, kept.patches, embedded);
  kept.encoded = encoder_.forward(pass, kept.offsets, embedded, kept.encoder);
  kept.normed = pass.allocate(tokens, width);
  pass.layer_norm({kept.encoded, post_layernorm_.weight, post_layernorm_.bias, epsilon, kept.normed});

  kept.attended = pass.allocate(batch.count, width);
  kept.projected = pass.allocate(batch.count, width);
  kept.pre_activation = pass.allocate(batch.count, config_.encoder.intermediate);
  const PoolingWeights& pooling = head_.pooling;
  pass.map_pool({kept.normed, kept.offsets.values.data(), batch.count, config_.encoder.heads, pooling.probe_keys,
                 pooling.value_weight, pooling.value_bias, kept.attended});
  pass.linear({kept.attended, head_.out_proj.weight, head_.out_proj.bias, Activation::kNone, {}, kept.projected});
  const Arena::Scope scope = pass.scope();
  const MatrixView head_normed = pass.allocate(batch.count, width);
  pass.layer_norm({kept.projected, head_.layer_norm.weight, head_.layer_norm.bias, epsilon, head_normed});
  head_.mlp.expand(pass, head_normed, kept.pre_activation);
  head_.mlp.contract(pass, kept.pre_activation, kept.projected, pooled);
}

bool VisionTower::embedding_trainable() const {
  return patch_embedding_.grad_weight != nullptr || position_table_.gradient != nullptr;
}

bool VisionTower::trainable() const {
  return embedding_trainable() || encoder_.trainable() || post_layernorm_.grad_weight != nullptr || head_.trainable();
}

void VisionTower::backward(Pass& pass, const VisionBatch& batch, const Activations& kept,
                           const MatrixView& grad_pooled) const {
  const Arena::Scope scope = pass.scope();
  const float epsilon = config_.encoder.epsilon;
  const bool below_encoder = embedding_trainable();
  const bool below_head = below_encoder || encoder_.trainable() || post_layernorm_.grad_weight != nullptr;
  const MatrixView grad_normed = below_head ? pass.allocate(kept.normed.rows, kept.normed.columns) : MatrixView{};
  backward_head(pass, kept, grad_pooled, grad_normed);
  if (!below_head) return;

  const MatrixView grad = pass.allocate(kept.normed.rows, kept.normed.columns);
  siglip2::backward(pass, post_layernorm_, epsilon, kept.encoded, grad_normed, grad, false);
  encoder_.backward(pass, kept.offsets, kept.encoder, grad, below_encoder);
  if (position_table_.gradient != nullptr)
    pass.position_embedding_backward(
        {config_.grid, config_.grid, batch.shapes(), batch.count, grad, position_table_.gradient});
  siglip2::backward(pass, patch_embedding_, kept.patches, grad, {});
}

void VisionTower::backward_head(Pass& pass, const Activations& kept, const MatrixView& grad_pooled,
                                const MatrixView& grad_tokens) const {
  const Arena::Scope scope = pass.scope();
  const std::int64_t images = grad_pooled.rows, width = grad_pooled.columns;
  const float epsilon = config_.encoder.epsilon;
  const MatrixView normed = pass.allocate(images, width);
  const MatrixView grad = pass.allocate(images, width);
  pass.layer_norm({kept.projected, head_.layer_norm.weight, head_.layer_norm.bias, epsilon, normed});
  head_.mlp.backward(pass, normed, kept.pre_activation, grad_pooled, grad);
  siglip2::backward(pass, head_.layer_norm, epsilon, kept.projected, grad, grad_pooled, true);
  siglip2::backward(pass, head_.out_proj, kept.attended, grad_pooled, grad);
  backward_pooling(pass, kept, grad, grad_tokens);
}

void VisionTower::backward_pooling(Pass& pass, const Activations& kept, const ConstMatrixView& grad_attended,
                                   const MatrixView& grad_tokens) const {
  const Arena::Scope scope = pass.scope();
  const std::int64_t images = grad_attended.rows, width = grad_attended.columns;
  const int heads = config_.encoder.heads;
  const PoolingWeights& pooling = head_.pooling;
  const bool trainable = pooling.grad_probe != nullptr;
  if (!trainable && grad_tokens.data == nullptr) return;

  MapPoolBackwardArgs args;
  args.tokens = kept.normed;
  args.offsets = kept.offsets.values.data();
  args.sequences = images;
  args.heads = heads;
  args.probe_keys = pooling.probe_keys;
  args.value_weight = pooling.value_weight;
  args.grad_output = grad_attended;
  args.grad_tokens = grad_tokens;
  args.pooled = pass.allocate_float(images, heads * width);
  args.grad_pooled = pass.allocate_float(images, heads * width);
  const MatrixView grad_probe_keys = trainable ? pass.allocate_float(heads, width) : MatrixView{};
  if (trainable) {
    pass.fill_zero(grad_probe_keys);
    args.grad_probe_keys = grad_probe_keys.as<float>();
    args.grad_value_weight = pooling.grad_projection_weight + 2 * width * width;
    args.grad_value_bias = pooling.grad_projection_bias + 2 * width;
  }
  pass.map_pool_backward(args);
  if (!trainable) return;
  pass.probe_keys_backward({pooling.derivation, grad_probe_keys.as<float>(), pooling.grad_probe,
                            pooling.grad_projection_weight, pooling.grad_projection_bias,
                            pooling.grad_projection_weight + width * width});
}

}  // namespace siglip2
