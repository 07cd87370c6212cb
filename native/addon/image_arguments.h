// Decoded images and their processing options as lib/ passes them.
#pragma once

#include <napi.h>

#include "nn/vision_tower.h"

namespace siglip2::addon {

// { images: [{ data, width, height, channels }], targetSizes, mean, deviation, rescale, mode, filter }, copied.
DecodedImages to_decoded_images(const Napi::Object& object);

}  // namespace siglip2::addon
