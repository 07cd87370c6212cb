#include "addon/model_arguments.h"

#include <cmath>
#include <utility>

#include "addon/image_arguments.h"
#include "tensor/shape_check.h"

namespace siglip2::addon {
namespace {

// Far beyond every model, and small enough that no product of two such sizes and a batch overflows.
constexpr std::int64_t kMostFeatures = 1 << 20;

EncoderSize to_encoder_size(const Napi::Object& object) {
  EncoderSize size;
  size.width = to_integer(object.Get("width"), "width", 1, kMostFeatures);
  size.layers = to_integer(object.Get("layers"), "layers", 0, 65536);
  size.heads = static_cast<int>(to_integer(object.Get("heads"), "heads", 1, size.width));
  if (size.width % size.heads != 0)
    throw Error(kErrorConfig,
                "heads: " + std::to_string(size.heads) + " do not divide the width " + std::to_string(size.width));
  size.intermediate = to_integer(object.Get("intermediate"), "intermediate", 1, kMostFeatures);
  size.epsilon = static_cast<float>(to_number(object.Get("epsilon"), "epsilon"));
  return size;
}

// PackedPatches must hold exactly the patches that the spatial shapes name, in patches of the tower's size.
void check_packed_patches(const VisionConfig& config, const PackedPatches& packed) {
  std::int64_t patches = 0;
  for (std::size_t i = 0; i < packed.spatial_shapes.size(); i += 2) {
    const std::int64_t rows = packed.spatial_shapes[i];
    const std::int64_t columns = packed.spatial_shapes[i + 1];
    if (rows < 1 || columns < 1)
      throw Error(kErrorShape, "spatialShapes: every image needs at least one row and one column");
    patches += rows * columns;
    // More than were given, or so many that adding on could overflow.
    if (patches > static_cast<std::int64_t>(packed.values.size())) break;
  }
  const std::int64_t patch = config.patch_size;
  const std::int64_t patch_dim = 3 * patch * patch;
  const auto values = static_cast<std::int64_t>(packed.values.size());
  if (values % patch_dim != 0 || patches != values / patch_dim)
    throw Error(kErrorShape, "patches: the data does not hold the patches that spatialShapes names");
}

}  // namespace

VisionConfig to_vision_config(const Napi::Object& object) {
  VisionConfig config;
  config.encoder = to_encoder_size(object);
  config.patch_size = static_cast<int>(to_integer(object.Get("patchSize"), "patchSize", 1, kMostPatchSize));
  config.grid = to_integer(object.Get("grid"), "grid", 1, 65536);
  config.fixed_resolution = to_boolean(object.Get("fixedResolution"), "fixedResolution");
  config.has_head = to_boolean(object.Get("hasHead"), "hasHead");
  return config;
}

TextConfig to_text_config(const Napi::Object& object) {
  TextConfig config;
  config.encoder = to_encoder_size(object);
  config.vocabulary = to_integer(object.Get("vocabulary"), "vocabulary", 1, 2147483647);
  config.positions = to_integer(object.Get("positions"), "positions", 1, kMostFeatures);
  config.projection = to_integer(object.Get("projection"), "projection", 1, kMostFeatures);
  return config;
}

VisionInput to_vision_input(const Napi::Object& object, const VisionConfig& config) {
  const std::string kind = to_string(object.Get("kind"), "kind");
  if (kind == "images") return to_decoded_images(object);
  if (kind == "pixels") {
    PixelValues pixels;
    pixels.values = to_floats(object.Get("pixelValues"), "pixelValues");
    const std::vector<std::int64_t> shape = to_shape(object.Get("shape"), "shape");
    if (shape.size() != 4 || shape[1] != 3 || shape[2] < 1 || shape[3] < 1 || shape[2] > 65536 || shape[3] > 65536 ||
        count_elements(shape) != static_cast<std::int64_t>(pixels.values.size()))
      throw Error(kErrorShape, "pixelValues: the shape does not fit the data");
    pixels.images = shape[0];
    pixels.height = shape[2];
    pixels.width = shape[3];
    return pixels;
  }
  PackedPatches patches;
  patches.values = to_floats(object.Get("patches"), "patches");
  patches.spatial_shapes = to_int32s(object.Get("spatialShapes"), "spatialShapes");
  if (patches.spatial_shapes.size() % 2 != 0)
    throw Error(kErrorShape, "spatialShapes: expected rows and columns for every image");
  check_packed_patches(config, patches);
  return patches;
}

Initialization to_initialization(const Napi::Value& kind, const Napi::Value& scale) {
  using Kind = Initialization::Kind;
  const std::string name = to_string(kind, "kind");
  const double value = to_number(scale, "scale");
  for (const auto& [kind_name, found] :
       {std::pair{"constant", Kind::kConstant}, std::pair{"uniform", Kind::kUniform},
        std::pair{"normal", Kind::kNormal}, std::pair{"truncated_normal", Kind::kTruncatedNormal}}) {
    if (name != kind_name) continue;
    if (!std::isfinite(value) || (value < 0 && found != Kind::kConstant))
      throw Napi::RangeError::New(scale.Env(),
                                  "scale: expected a finite number, not negative, got " + std::to_string(value));
    return {found, value};
  }
  throw Error(kErrorUnsupported, "kind: expected constant, uniform, normal or truncated_normal, got " + name);
}

}  // namespace siglip2::addon
