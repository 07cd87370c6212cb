// The emulated device as a device library.
#include <cstring>

#include "backend/device_library.h"
#include "cuda/backend.h"
#include "cuda/runtime.h"
#include "simt/control.h"
#include "simt/device_memory.h"

namespace siglip2::simt {
namespace {

void facts(int, DeviceFacts* facts) {
  *facts = {};
  std::strcpy(facts->name, "emulated GPU, for tests");
  std::strcpy(facts->architecture, "sm_80");
  facts->memory_bytes = device_memory_bytes();
  facts->free_bytes = free_device_memory_bytes();
  facts->multiprocessors = 4;
}

const DeviceLibrary& library() {
  static const OpTable table = cuda::make_table("simt");
  static const DeviceLibrary library{
      "simt",
      []() noexcept { return 1; },
      []() noexcept { return ""; },
      [](int ordinal) -> void* {
        make_device_memory_strict();
        static auto* const state = new cuda::DeviceState(ordinal);
        return state;
      },
      facts,
      &table,
      cuda::runtime::timer_start,
      cuda::runtime::timer_stop,
      cuda::runtime::flush_l2,
      control,
  };
  return library;
}

}  // namespace
}  // namespace siglip2::simt

extern "C" __attribute__((visibility("default"))) const siglip2::DeviceLibrary* siglip2_device_library(int version) {
  return version == siglip2::kDeviceLibraryVersion ? &siglip2::simt::library() : nullptr;
}
