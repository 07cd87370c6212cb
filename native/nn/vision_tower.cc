#include "nn/vision_tower.h"

#include <string>
#include <utility>

#include "nn/state_collector.h"
#include "tensor/error.h"

namespace siglip2 {
namespace {

// A convolution weight [out, 3, p, p] as the linear weight [out, p·p·3] that acts on patches in row, column, channel
// order.
std::vector<float> convolution_to_linear(const std::vector<float>& convolution, std::int64_t out_features, int patch) {
  const std::int64_t area = static_cast<std::int64_t>(patch) * patch;
  std::vector<float> linear(convolution.size());
  for (std::int64_t o = 0; o < out_features; ++o)
    for (std::int64_t channel = 0; channel < 3; ++channel)
      for (std::int64_t position = 0; position < area; ++position)
        linear[static_cast<std::size_t>((o * area + position) * 3 + channel)] =
            convolution[static_cast<std::size_t>((o * 3 + channel) * area + position)];
  return linear;
}

}  // namespace

VisionTower::VisionTower(const VisionConfig& config, Device& device, const Checkpoint& checkpoint, int threads,
                         std::shared_ptr<const CancelToken> cancel)
    : config_(config), parameters_(device, checkpoint, threads, std::move(cancel)) {
  load_patch_embedding();
  encoder_ = Encoder::load(parameters_, "vision_model.encoder.", config_.encoder);
  post_layernorm_ = parameters_.layer_norm("vision_model.post_layernorm", config_.encoder.width);
  if (config_.has_head) load_head();
}

void VisionTower::load_patch_embedding() {
  const std::int64_t width = config_.encoder.width;
  const int patch = config_.patch_size;
  const std::int64_t patch_dim = std::int64_t{3} * patch * patch;
  const std::string name = "vision_model.embeddings.patch_embedding";
  if (config_.fixed_resolution) {
    const std::vector<float> weight =
        convolution_to_linear(parameters_.read(name + ".weight", {width, 3, patch, patch}), width, patch);
    patch_embedding_ = {parameters_.pack({{weight.data(), DType::kFloat32, width, patch_dim, patch_dim}}),
                        parameters_.vector(name + ".bias", {width})};
  } else {
    patch_embedding_ = parameters_.linear(name, width, patch_dim);
  }
  position_table_ =
      parameters_.vector("vision_model.embeddings.position_embedding.weight", {config_.grid * config_.grid, width});
}

void VisionTower::load_head() {
  const std::int64_t width = config_.encoder.width;
  const std::string name = "vision_model.head.";
  const std::vector<float> probe = parameters_.read(name + "probe", {1, 1, width});
  const std::vector<float> weight = parameters_.read(name + "attention.in_proj_weight", {3 * width, width});
  const std::vector<float> bias = parameters_.read(name + "attention.in_proj_bias", {3 * width});
  const auto square = static_cast<std::size_t>(width * width);
  const auto row = static_cast<std::size_t>(width);

  std::vector<float> probe_keys(static_cast<std::size_t>(config_.encoder.heads) * row);
  derive_probe_keys(probe.data(), weight.data(), bias.data(), weight.data() + square, width, config_.encoder.heads,
                    probe_keys.data());
  head_.probe_keys = parameters_.upload(probe_keys);
  head_.value_weight = parameters_.upload({weight.end() - static_cast<std::ptrdiff_t>(square), weight.end()});
  head_.value_bias = parameters_.upload({bias.end() - static_cast<std::ptrdiff_t>(row), bias.end()});
  head_.out_proj = parameters_.linear(name + "attention.out_proj", width, width);
  head_.layer_norm = parameters_.layer_norm(name + "layernorm", width);
  head_.mlp = Mlp::load(parameters_, name + "mlp.", width, config_.encoder.intermediate);
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

MatrixView VisionTower::embed(Pass& pass, const VisionInput& input, const std::vector<std::int32_t>& shapes,
                              std::int64_t tokens) const {
  const int patch = config_.patch_size;
  const MatrixView embedded = pass.allocate(tokens, config_.encoder.width);
  {
    const Arena::Scope scope = pass.scope();
    const MatrixView patches = pass.allocate(tokens, std::int64_t{3} * patch * patch);
    if (const auto* decoded = std::get_if<DecodedImages>(&input)) {
      PatchifyImagesArgs args = decoded->processing;
      args.images = decoded->images.data();
      args.count = static_cast<std::int64_t>(decoded->images.size());
      args.target_sizes = decoded->target_sizes.data();
      args.patch_size = patch;
      args.layout = PixelLayout::kPatches;
      args.output = patches;
      pass.patchify_images(args);
    } else if (const auto* pixels = std::get_if<PixelValues>(&input)) {
      pass.patchify_pixels({pixels->values.data(), pixels->images, pixels->height, pixels->width, patch, patches});
    } else {
      pass.copy_to_device(patches, std::get<PackedPatches>(input).values.data());
    }
    pass.linear({patches, patch_embedding_.weight, patch_embedding_.bias, Activation::kNone, {}, embedded});
  }
  pass.position_embedding({position_table_, config_.grid, config_.grid, shapes.data(),
                           static_cast<std::int64_t>(shapes.size() / 2), embedded});
  return embedded;
}

void VisionTower::pool(Pass& pass, const MatrixView& tokens, const Offsets& offsets, const VisionRequest& request,
                       VisionResult& result) const {
  const std::int64_t width = config_.encoder.width;
  const MatrixView attended = pass.allocate(offsets.sequences(), width);
  const MatrixView pooled = pass.allocate(offsets.sequences(), width);
  pass.map_pool({tokens, offsets.values.data(), offsets.sequences(), config_.encoder.heads, head_.probe_keys,
                 head_.value_weight, head_.value_bias, attended});
  pass.linear({attended, head_.out_proj.weight, head_.out_proj.bias, Activation::kNone, {}, pooled});
  pass.layer_norm({pooled, head_.layer_norm.weight, head_.layer_norm.bias, config_.encoder.epsilon, attended});
  head_.mlp.forward(pass, attended, pooled, pooled);
  if (request.normalize) pass.l2_normalize({pooled, pooled});
  if (!pass.planning()) result.pooled.resize(static_cast<std::size_t>(offsets.sequences() * width));
  pass.copy_to_host(result.pooled.data(), pooled);
}

VisionResult VisionTower::forward(Device& device, const VisionInput& input, const VisionRequest& request, int threads,
                                  const CancelToken& cancel) const {
  if (request.pooled && !config_.has_head)
    throw Error(kErrorUnsupported,
                "this checkpoint has no pooling head (vision_use_head is false), so images have no "
                "pooled embedding; denseFeatures works");
  VisionResult result;
  result.spatial_shapes = spatial_shapes(input);
  const std::vector<std::int32_t>& shapes = result.spatial_shapes;
  Offsets offsets;
  for (std::size_t i = 0; i < shapes.size(); i += 2)
    offsets.append(static_cast<std::int64_t>(shapes[i]) * shapes[i + 1]);
  if (offsets.sequences() == 0) return result;

  Pass::run(device, threads, cancel, [&](Pass& pass) {
    const Arena::Scope scope = pass.scope();
    const MatrixView tokens = embed(pass, input, shapes, offsets.tokens());
    StateCollector states(request.hidden_states, request.layer, result.hidden_states);
    if (!encoder_.forward(pass, offsets, tokens, &states)) return;
    if (!request.pooled && !request.last_hidden_state) return;
    pass.layer_norm({tokens, post_layernorm_.weight, post_layernorm_.bias, config_.encoder.epsilon, tokens});
    if (request.last_hidden_state) {
      if (!pass.planning()) result.last_hidden_state.resize(static_cast<std::size_t>(tokens.rows * tokens.columns));
      pass.copy_to_host(result.last_hidden_state.data(), tokens);
    }
    if (request.pooled) pool(pass, tokens, offsets, request, result);
  });
  result.activation_bytes = device.arena().planned();
  return result;
}

}  // namespace siglip2
