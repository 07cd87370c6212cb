#include "nn/text_tower.h"

#include <string>
#include <utility>

#include "nn/state_collector.h"
#include "tensor/error.h"

namespace siglip2 {
namespace {

// The last position of every text, whatever token it holds: rows `length` apart.
MatrixView last_positions(const MatrixView& tokens, const TextBatch& batch) {
  MatrixView rows = tokens.slice_rows(batch.length - 1, batch.count);
  rows.stride = batch.length * tokens.stride;
  return rows;
}

}  // namespace

Offsets TextBatch::offsets() const {
  Offsets offsets;
  for (std::int64_t text = 0; text < count; ++text)
    offsets.append(length);
  return offsets;
}

TextTower::TextTower(const TextConfig& config, std::shared_ptr<Parameters> parameters)
    : config_(config), parameters_(std::move(parameters)) {
  const std::size_t bytes_before = parameters_->bytes();
  const std::int64_t width = config_.encoder.width;
  token_table_ = parameters_->token_table("text_model.embeddings.token_embedding.weight", config_.vocabulary, width);
  position_table_ = parameters_->vector("text_model.embeddings.position_embedding.weight", {config_.positions, width});
  encoder_ = Encoder::load(*parameters_, "text_model.encoder.", config_.encoder);
  final_layer_norm_ = parameters_->layer_norm("text_model.final_layer_norm", width);
  head_ = parameters_->linear("text_model.head", config_.projection, width);
  weight_bytes_ = parameters_->bytes() - bytes_before;
}

void TextTower::check(std::int64_t ids, std::int64_t length) const {
  if (length < 1 || length > config_.positions)
    throw Error(kErrorShape, "inputIds: expected 1 to " + std::to_string(config_.positions) + " tokens a text, got " +
                                 std::to_string(length));
  if (ids % length != 0)
    throw Error(kErrorShape,
                "inputIds: expected a multiple of " + std::to_string(length) + " tokens, got " + std::to_string(ids));
}

MatrixView TextTower::embed(Pass& pass, const TextBatch& batch) const {
  const MatrixView tokens = pass.allocate(batch.count * batch.length, config_.encoder.width);
  pass.token_embedding({batch.ids, batch.length, token_table_.values, position_table_.values, tokens});
  return tokens;
}

void TextTower::pool(Pass& pass, const ConstMatrixView& last, const MatrixView& normed,
                     const MatrixView& pooled) const {
  pass.layer_norm({last, final_layer_norm_.weight, final_layer_norm_.bias, config_.encoder.epsilon, normed});
  pass.linear({normed, head_.weight, head_.bias, Activation::kNone, {}, pooled});
}

TextResult TextTower::forward(Device& device, const std::vector<std::int32_t>& ids, std::int64_t length,
                              const TextRequest& request, int threads, const CancelToken& cancel) const {
  check(static_cast<std::int64_t>(ids.size()), length);
  parameters_->check_files();
  TextResult result;
  const TextBatch batch{ids.data(), nullptr, static_cast<std::int64_t>(ids.size()) / length, length};
  const Offsets offsets = batch.offsets();
  if (batch.count == 0) return result;
  const std::int64_t width = config_.encoder.width;

  Pass::run(device, parameters_->activation_type(), threads, cancel, [&](Pass& pass) {
    const Arena::Scope scope = pass.scope();
    const MatrixView tokens = embed(pass, batch);
    StateCollector states(request.hidden_states, -1, tokens.rows, result.hidden_states);
    encoder_.forward(pass, offsets, tokens, &states);

    if (request.last_hidden_state) {
      const MatrixView normed = pass.allocate(offsets.tokens(), width);
      pass.layer_norm({tokens, final_layer_norm_.weight, final_layer_norm_.bias, config_.encoder.epsilon, normed});
      if (!pass.planning()) result.last_hidden_state.resize(static_cast<std::size_t>(offsets.tokens() * width));
      pass.copy_to_host(result.last_hidden_state.data(), normed);
    }
    if (!request.pooled) return;
    const MatrixView normed = pass.allocate(batch.count, width);
    const MatrixView pooled = pass.allocate(batch.count, config_.projection);
    pool(pass, last_positions(tokens, batch), normed, pooled);
    // Unit rows leave in float32, as those of images do.
    const MatrixView features = request.normalize ? pass.allocate_float(pooled.rows, pooled.columns) : pooled;
    if (request.normalize) pass.l2_normalize({pooled, features});
    if (!pass.planning()) result.pooled.resize(static_cast<std::size_t>(batch.count * config_.projection));
    pass.copy_to_host(result.pooled.data(), features);
  });
  result.activation_bytes = device.planned_bytes();
  return result;
}

void TextTower::forward(Pass& pass, const TextBatch& batch, const MatrixView& pooled) const {
  const Arena::Scope scope = pass.scope();
  const MatrixView tokens = embed(pass, batch);
  encoder_.forward(pass, batch.offsets(), tokens, nullptr);
  pool(pass, last_positions(tokens, batch), pass.allocate(batch.count, config_.encoder.width), pooled);
}

void TextTower::forward(Pass& pass, const TextBatch& batch, const MatrixView& pooled, Activations& kept) const {
  kept.offsets = batch.offsets();
  const MatrixView tokens = embed(pass, batch);
  kept.last = last_positions(encoder_.forward(pass, kept.offsets, tokens, kept.encoder), batch);
  kept.normed = pass.allocate(batch.count, config_.encoder.width);
  pool(pass, kept.last, kept.normed, pooled);
}

bool TextTower::trainable() const {
  return embedding_trainable() || encoder_.trainable() || final_layer_norm_.grad_weight != nullptr ||
         head_.grad_weight != nullptr;
}

void TextTower::backward(Pass& pass, const TextBatch& batch, const Activations& kept,
                         const ConstMatrixView& grad_pooled) const {
  const Arena::Scope scope = pass.scope();
  const std::int64_t width = config_.encoder.width;
  const bool below_encoder = embedding_trainable();
  const bool below_norm = below_encoder || encoder_.trainable();
  if (!below_norm && final_layer_norm_.grad_weight == nullptr) {
    siglip2::backward(pass, head_, kept.normed, grad_pooled, {});
    return;
  }
  const MatrixView grad_normed = pass.allocate(batch.count, width);
  siglip2::backward(pass, head_, kept.normed, grad_pooled, grad_normed);
  // All positions but the last have no gradient from above.
  const MatrixView grad = pass.allocate(kept.offsets.tokens(), width);
  pass.fill_zero(grad);
  siglip2::backward(pass, final_layer_norm_, config_.encoder.epsilon, kept.last, grad_normed,
                    last_positions(grad, batch), false);
  if (!below_norm) return;
  encoder_.backward(pass, kept.offsets, kept.encoder, grad, below_encoder);
  if (!below_encoder) return;
  TokenEmbeddingBackwardArgs embedding;
  embedding.slots = batch.slots;
  embedding.length = batch.length;
  embedding.grad_output = grad;
  embedding.grad_positions = position_table_.gradient;
  if (token_table_.gradient != nullptr) {
    embedding.slot_count = token_table_.gradient->slot_count;
    embedding.grad_table = token_table_.gradient->rows;
  }
  pass.token_embedding_backward(embedding);
}

}  // namespace siglip2
