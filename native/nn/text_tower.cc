#include "nn/text_tower.h"

#include "nn/state_collector.h"
#include "tensor/error.h"

namespace siglip2 {
namespace {

constexpr const char* kTokenTable = "text_model.embeddings.token_embedding.weight";

}  // namespace

TextTower::TextTower(const TextConfig& config, Device& device, std::shared_ptr<const Checkpoint> checkpoint,
                     int threads, std::shared_ptr<const CancelToken> cancel)
    : config_(config),
      checkpoint_(std::move(checkpoint)),
      parameters_(device, *checkpoint_, threads, std::move(cancel)) {
  const std::int64_t width = config_.encoder.width;
  token_table_ = parameters_.mapped(kTokenTable, {config_.vocabulary, width}).matrix();
  position_table_ = parameters_.vector("text_model.embeddings.position_embedding.weight", {config_.positions, width});
  encoder_ = Encoder::load(parameters_, "text_model.encoder.", config_.encoder);
  final_layer_norm_ = parameters_.layer_norm("text_model.final_layer_norm", width);
  head_ = parameters_.linear("text_model.head", config_.projection, width);
}

TextResult TextTower::forward(Device& device, const std::vector<std::int32_t>& ids, std::int64_t length,
                              const TextRequest& request, int threads, const CancelToken& cancel) const {
  if (length < 1 || length > config_.positions)
    throw Error(kErrorShape, "inputIds: expected 1 to " + std::to_string(config_.positions) + " tokens a text, got " +
                                 std::to_string(length));
  if (static_cast<std::int64_t>(ids.size()) % length != 0)
    throw Error(kErrorShape, "inputIds: expected a multiple of " + std::to_string(length) + " tokens, got " +
                                 std::to_string(ids.size()));
  (void)checkpoint_->tensor(kTokenTable);  // still whole?
  TextResult result;
  Offsets offsets;
  const std::int64_t texts = static_cast<std::int64_t>(ids.size()) / length;
  for (std::int64_t text = 0; text < texts; ++text)
    offsets.append(length);
  if (texts == 0) return result;
  const std::int64_t width = config_.encoder.width;

  Pass::run(device, threads, cancel, [&](Pass& pass) {
    const Arena::Scope scope = pass.scope();
    const MatrixView tokens = pass.allocate(offsets.tokens(), width);
    pass.token_embedding({ids.data(), length, token_table_, position_table_, tokens});
    StateCollector states(request.hidden_states, -1, result.hidden_states);
    encoder_.forward(pass, offsets, tokens, &states);

    if (request.last_hidden_state) {
      const MatrixView normed = pass.allocate(offsets.tokens(), width);
      pass.layer_norm({tokens, final_layer_norm_.weight, final_layer_norm_.bias, config_.encoder.epsilon, normed});
      if (!pass.planning()) result.last_hidden_state.resize(static_cast<std::size_t>(offsets.tokens() * width));
      pass.copy_to_host(result.last_hidden_state.data(), normed);
    }
    if (!request.pooled) return;
    // The last position of every text, whatever token it holds: rows `length` apart.
    const MatrixView last{tokens.as<float>() + (length - 1) * width, DType::kFloat32, texts, width, length * width};
    const MatrixView normed = pass.allocate(texts, width);
    pass.layer_norm({last, final_layer_norm_.weight, final_layer_norm_.bias, config_.encoder.epsilon, normed});
    const MatrixView pooled = pass.allocate(texts, config_.projection);
    pass.linear({normed, head_.weight, head_.bias, Activation::kNone, {}, pooled});
    if (request.normalize) pass.l2_normalize({pooled, pooled});
    if (!pass.planning()) result.pooled.resize(static_cast<std::size_t>(texts * config_.projection));
    pass.copy_to_host(result.pooled.data(), pooled);
  });
  result.activation_bytes = device.arena().planned();
  return result;
}

}  // namespace siglip2
