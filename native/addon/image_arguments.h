// Decoded images and their processing options as lib/ passes them.
#pragma once

#include <napi.h>

#include "backend/device.h"
#include "nn/vision_tower.h"

namespace siglip2::addon {

// { images: [{ data, width, height, channels }], targetSizes, mean, deviation, rescale, mode, filter }, copied. Where a
// device is given, images may have a `tensor` of it in place of `data`, uint8, which is kept.
DecodedImages to_decoded_images(const Napi::Object& object, const Device* device = nullptr);

}  // namespace siglip2::addon
