// Configurations and inputs of models, read from JavaScript.
#pragma once

#include "addon/arguments.h"
#include "nn/text_tower.h"
#include "nn/vision_tower.h"
#include "train/initialize.h"

namespace siglip2::addon {

inline constexpr std::int64_t kMostPatchSize = 4096;

VisionConfig to_vision_config(const Napi::Object& object);
TextConfig to_text_config(const Napi::Object& object);

// { kind: 'images', … } | { kind: 'pixels', pixelValues, shape } | { kind: 'patches', patches, spatialShapes }.
// ERR_SIGLIP_SHAPE when shapes do not fit the data, or a tower of this configuration.
VisionInput to_vision_input(const Napi::Object& object, const VisionConfig& config);

// A kind by name ('constant', 'uniform', 'normal', 'truncated_normal') and its scale, finite.
Initialization to_initialization(const Napi::Value& kind, const Napi::Value& scale);

}  // namespace siglip2::addon
