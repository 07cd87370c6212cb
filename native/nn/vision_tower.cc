#include "nn/vision_tower.h"

#include <string>
#include <utility>

#include "nn/state_collector.h"
#include "nn/token_bucket.h"
#include "tensor/error.h"

namespace siglip2 {

Offsets VisionBatch::offsets() const {
  Offsets offsets;
  const std::int32_t* const grids = shapes();
  for (std::int64_t image = 0; image < count; ++image)
    offsets.append(static_cast<std::int64_t>(grids[2 * image]) * grids[2 * image + 1]);
  return offsets;
}

VisionTower::VisionTower(const VisionConfig& config, std::shared_ptr<Parameters> parameters)
    : config_(config), parameters_(std::move(parameters)) {
  const std::size_t bytes_before = parameters_->bytes();
  const std::int64_t width = config_.encoder.width;
  const std::int64_t patch_dim = std::int64_t{3} * config_.patch_size * config_.patch_size;
  const std::string embedding = "vision_model.embeddings.patch_embedding";
  patch_embedding_ = config_.fixed_resolution ? parameters_->patch_convolution(embedding, width, config_.patch_size)
                                              : parameters_->linear(embedding, width, patch_dim);
  position_table_ =
      parameters_->vector("vision_model.embeddings.position_embedding.weight", {config_.grid * config_.grid, width});
  encoder_ = Encoder::load(*parameters_, "vision_model.encoder.", config_.encoder);
  post_layernorm_ = parameters_->layer_norm("vision_model.post_layernorm", width);
  if (config_.has_head) {
    const std::string head = "vision_model.head.";
    head_.pooling = parameters_->pooling(head, width, config_.encoder.heads);
    head_.out_proj = parameters_->linear(head + "attention.out_proj", width, width);
    head_.layer_norm = parameters_->layer_norm(head + "layernorm", width);
    head_.mlp = Mlp::load(*parameters_, head + "mlp.", width, config_.encoder.intermediate);
  }
  weight_bytes_ = parameters_->bytes() - bytes_before;
}

std::vector<std::int32_t> VisionTower::spatial_shapes(const VisionInput& input) const {
  const int patch = config_.patch_size;
  std::vector<std::int32_t> shapes;
  if (const auto* decoded = std::get_if<DecodedImages>(&input)) {
    for (const std::int32_t size : decoded->target_sizes)
      shapes.push_back(size / patch);
  } else if (const auto* pixels = std::get_if<PixelValues>(&input)) {
    for (std::int64_t image = 0; image < pixels->images; ++image) {
      shapes.push_back(static_cast<std::int32_t>(pixels->height / patch));
      shapes.push_back(static_cast<std::int32_t>(pixels->width / patch));
    }
  } else {
    shapes = std::get<PackedPatches>(input).spatial_shapes;
  }
  for (std::size_t i = 0; i < shapes.size(); i += 2) {
    const bool fits = config_.fixed_resolution ? shapes[i] == config_.grid && shapes[i + 1] == config_.grid
                                               : shapes[i] > 0 && shapes[i + 1] > 0;
    if (!fits)
      throw Error(kErrorShape,
                  "image " + std::to_string(i / 2) + " has a grid of " + std::to_string(shapes[i]) + " × " +
                      std::to_string(shapes[i + 1]) + " patches; this model takes " +
                      (config_.fixed_resolution ? std::to_string(config_.grid) + " × " + std::to_string(config_.grid)
                                                : std::string("at least 1 × 1")));
  }
  return shapes;
}

void VisionTower::cut_patches(Pass& pass, const VisionBatch& batch, const MatrixView& patches) const {
  const int patch = config_.patch_size;
  if (const auto* decoded = std::get_if<DecodedImages>(&batch.input)) {
    PatchifyImagesArgs args = decoded->processing;
    args.images = decoded->images.data() + batch.first;
    args.count = batch.count;
    args.target_sizes = decoded->target_sizes.data() + 2 * batch.first;
    args.patch_size = patch;
    args.layout = PixelLayout::kPatches;
    args.output = patches;
    pass.patchify_images(args);
  } else if (const auto* pixels = std::get_if<PixelValues>(&batch.input)) {
    const float* const values = pixels->values.data() + 3 * pixels->height * pixels->width * batch.first;
    pass.patchify_pixels({values, batch.count, pixels->height, pixels->width, patch, patches});
  } else {
    std::int64_t skipped = 0;
    for (std::int64_t image = 0; image < batch.first; ++image)
      skipped += static_cast<std::int64_t>(batch.spatial_shapes[2 * image]) * batch.spatial_shapes[2 * image + 1];
    pass.copy_to_device(patches, std::get<PackedPatches>(batch.input).values.data() + skipped * patches.columns);
  }
}

void VisionTower::embed(Pass& pass, const VisionBatch& batch, const MatrixView& patches,
                        const MatrixView& embedded) const {
  cut_patches(pass, batch, patches);
  pass.linear({patches, patch_embedding_.weight, patch_embedding_.bias, Activation::kNone, {}, embedded});
  pass.position_embedding({position_table_.values, config_.grid, config_.grid, batch.shapes(), batch.count, embedded});
}

MatrixView VisionTower::embed(Pass& pass, const VisionBatch& batch, Offsets& offsets) const {
  const std::int64_t tokens = offsets.tokens();
  std::int64_t rows = tokens;
  if (!config_.fixed_resolution && !pass.on_host()) {
    const TokenBucket bucket = token_bucket(offsets);
    rows = bucket.rows;
    offsets.length_bound = bucket.length_bound;
  }
  const MatrixView embedded = pass.allocate(rows, config_.encoder.width);
  std::int64_t first = batch.first;
  for (const SequenceGroup& group : group_sequences(pass, offsets, tokens)) {
    const Arena::Scope scope = pass.scope();
    const VisionBatch part{batch.input, batch.spatial_shapes, first, group.offsets.sequences()};
    embed(pass, part, pass.allocate(group.rows, std::int64_t{3} * config_.patch_size * config_.patch_size),
          embedded.slice_rows(group.first_row, group.rows));
    first += part.count;
  }
  if (rows > tokens) pass.fill_zero(embedded.slice_rows(tokens, rows - tokens));
  if (offsets.length_bound > 0) pass.divide();
  return embedded;
}

void VisionTower::pool(Pass& pass, const ConstMatrixView& tokens, const Offsets& offsets,
                       const MatrixView& pooled) const {
  const Arena::Scope scope = pass.scope();
  const MatrixView attended = pass.allocate(offsets.sequences(), config_.encoder.width);
  const PoolingWeights& pooling = head_.pooling;
  pass.map_pool({tokens, offsets.values.data(), offsets.sequences(), config_.encoder.heads, pooling.probe_keys,
                 pooling.value_weight, pooling.value_bias, attended, offsets.length_bound});
  pass.linear({attended, head_.out_proj.weight, head_.out_proj.bias, Activation::kNone, {}, pooled});
  pass.layer_norm({pooled, head_.layer_norm.weight, head_.layer_norm.bias, config_.encoder.epsilon, attended});
  head_.mlp.forward(pass, attended, pooled, pooled);
}

VisionResult VisionTower::forward(Device& device, const VisionInput& input, const VisionRequest& request, int threads,
                                  const CancelToken& cancel) const {
  if (request.pooled && !config_.has_head)
    throw Error(kErrorUnsupported,
                "this checkpoint has no pooling head (vision_use_head is false), so images have no "
                "pooled embedding; denseFeatures works");
  parameters_->check_files();
  VisionResult result;
  result.spatial_shapes = spatial_shapes(input);
  const std::vector<std::int32_t>& shapes = result.spatial_shapes;
  const VisionBatch batch{input, shapes, 0, static_cast<std::int64_t>(shapes.size() / 2)};
  if (batch.count == 0) return result;

  Pass::run(device, parameters_->activation_type(), threads, cancel, [&](Pass& pass) {
    const Arena::Scope scope = pass.scope();
    Offsets offsets = batch.offsets();
    const MatrixView tokens = embed(pass, batch, offsets);
    StateCollector states(request.hidden_states, request.layer, offsets.tokens(), result.hidden_states);
    if (!encoder_.forward(pass, offsets, tokens, &states)) return;
    if (!request.pooled && !request.last_hidden_state) return;
    pass.layer_norm({tokens, post_layernorm_.weight, post_layernorm_.bias, config_.encoder.epsilon, tokens});
    if (request.last_hidden_state) {
      const MatrixView last = tokens.slice_rows(0, offsets.tokens());
      if (!pass.planning()) result.last_hidden_state.resize(static_cast<std::size_t>(last.rows * last.columns));
      pass.copy_to_host(result.last_hidden_state.data(), last);
    }
    if (!request.pooled) return;
    const MatrixView pooled = pass.allocate(offsets.sequences(), config_.encoder.width);
    pool(pass, tokens, offsets, pooled);
    // Unit rows leave in float32, whatever the pass computes in: rounded to bfloat16 their length would not be 1.
    const MatrixView features = request.normalize ? pass.allocate_float(pooled.rows, pooled.columns) : pooled;
    if (request.normalize) pass.l2_normalize({pooled, features});
    if (!pass.planning()) result.pooled.resize(static_cast<std::size_t>(features.rows * features.columns));
    pass.copy_to_host(result.pooled.data(), features);
  });
  result.activation_bytes = device.planned_bytes();
  return result;
}

}  // namespace siglip2
