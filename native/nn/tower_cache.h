// Towers are shared: two handles on the same files and device, in whatever worker, use one copy of the packed weights.
#pragma once

#include <memory>
#include <string>

#include "backend/cancel.h"
#include "nn/text_tower.h"
#include "nn/vision_tower.h"
#include "tensor/checkpoint.h"

namespace siglip2 {

// The tower of this checkpoint and configuration on this device, computing in this type, loaded unless some handle
// still holds it. Runs on the device's executor thread. `cancel` stops the loading. With a `packed_folder` packed
// weights of the CPU are kept there (nn/packed_store.h); empty: they are not.
std::shared_ptr<const VisionTower> share_vision_tower(const VisionConfig& config, Device& device, DType type,
                                                      const std::shared_ptr<const Checkpoint>& checkpoint, int threads,
                                                      const std::shared_ptr<const CancelToken>& cancel,
                                                      const std::string& packed_folder);
std::shared_ptr<const TextTower> share_text_tower(const TextConfig& config, Device& device, DType type,
                                                  const std::shared_ptr<const Checkpoint>& checkpoint, int threads,
                                                  const std::shared_ptr<const CancelToken>& cancel,
                                                  const std::string& packed_folder);

}  // namespace siglip2
