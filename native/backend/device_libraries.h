// The device libraries that lie beside the addon: opened when first asked for, checked, and kept as long as the
// process.
#pragma once

#include <string>

#include "backend/device_library.h"

namespace siglip2 {

// A library, or why it cannot be used.
struct OpenedLibrary {
  const DeviceLibrary* library = nullptr;
  int devices = 0;     // how many can be used; 0 without a library
  std::string reason;  // why there is no device
};

// siglip2-cuda and siglip2-simt. The second is only for tests, so it is opened only by a call of simt_library().
const OpenedLibrary& cuda_library();
const OpenedLibrary& simt_library();
bool simt_library_opened();

}  // namespace siglip2
