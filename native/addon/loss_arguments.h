// The argument that the loss and the training steps share: which texts belong to which images.
#pragma once

#include <optional>

#include "addon/arguments.h"
#include "ops/sigmoid_loss/sigmoid_loss.h"

namespace siglip2::addon {

// { offsets, texts }, both Int32Array, or undefined. What they contain is checked where they are used.
inline std::optional<PositiveLists> to_positives(const Napi::Value& value) {
  if (value.IsUndefined()) return std::nullopt;
  const Napi::Object object = to_object(value, "positives");
  return PositiveLists{to_int32s(object.Get("offsets"), "positives.offsets"),
                       to_int32s(object.Get("texts"), "positives.texts")};
}

}  // namespace siglip2::addon
