// GPUs of the CUDA runtime as a device library. The runtime is linked statically, so the library opens on every machine
// and says why there is no GPU where there is none.
#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "backend/device_library.h"
#include "cuda/cuda_device.h"
#include "cuda/runtime.h"
#include "tensor/error.h"

namespace siglip2::cuda {
namespace {

constexpr int kLeastMajor = 8;  // sm_80, the oldest that kernels are compiled for

std::string version_name(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

std::string reason_of(cudaError_t status) {
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess) driver = 0;
  (void)cudaGetLastError();
  const std::string needed = version_name(CUDART_VERSION);
  if (driver == 0) return "no NVIDIA driver is installed (or it is not visible here)";
  if (status == cudaErrorInsufficientDriver)
    return "the NVIDIA driver is too old: it knows CUDA " + version_name(driver) + ", this library needs CUDA " +
           version_name(CUDART_VERSION / 1000 * 1000) + " or newer";
  if (status == cudaErrorNoDevice) return "the NVIDIA driver shows no GPU (CUDA_VISIBLE_DEVICES may hide it)";
  return std::string("the CUDA runtime ") + needed + " does not start: " + cudaGetErrorString(status) + " (" +
         cudaGetErrorName(status) + ")";
}

// The GPUs that can be used, by their numbers in the CUDA runtime, and what was opened of them.
struct Devices {
  Devices() {
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    if (status != cudaSuccess) {
      reason = reason_of(status);
      return;
    }
    std::string too_old;
    for (int number = 0; number < count; ++number) {
      int major = 0;
      int minor = 0;
      if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, number) != cudaSuccess ||
          cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, number) != cudaSuccess) {
        (void)cudaGetLastError();
        continue;
      }
      if (major >= kLeastMajor) {
        usable.push_back(number);
      } else {
        too_old += (too_old.empty() ? "sm_" : ", sm_") + std::to_string(10 * major + minor);
      }
    }
    opened.resize(usable.size());
    if (!usable.empty()) return;
    reason = too_old.empty() ? "the NVIDIA driver shows no GPU"
                             : "the kernels need sm_80 (Ampere) or newer; the GPUs here are " + too_old;
  }

  CudaDevice& open(int ordinal) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (ordinal < 0 || ordinal >= static_cast<int>(usable.size()))
      throw Error(kErrorNoDevice, "there is no GPU " + std::to_string(ordinal) + ": " +
                                      (usable.empty() ? reason : "there are " + std::to_string(usable.size())));
    auto& device = opened[ordinal];
    if (device == nullptr) device = std::make_unique<CudaDevice>(ordinal, usable[ordinal]);
    return *device;
  }

  std::mutex mutex;
  std::vector<int> usable;
  std::vector<std::unique_ptr<CudaDevice>> opened;
  std::string reason;
};

Devices& devices() {
  // Never destroyed: work may still be running while the process exits.
  static auto* const all = new Devices;
  return *all;
}

void copy_text(char* to, std::size_t capacity, const std::string& text) {
  const std::size_t length = std::min(capacity - 1, text.size());
  std::memcpy(to, text.data(), length);
  to[length] = '\0';
}

void facts(int ordinal, DeviceFacts* facts) {
  *facts = {};
  CudaDevice& device = devices().open(ordinal);
  const cudaDeviceProp& properties = device.properties();
  copy_text(facts->name, sizeof(facts->name), properties.name);
  copy_text(facts->architecture, sizeof(facts->architecture),
            "sm_" + std::to_string(10 * properties.major + properties.minor));
  facts->memory_bytes = properties.totalGlobalMem;
  facts->multiprocessors = properties.multiProcessorCount;
  if (cudaDriverGetVersion(&facts->driver_version) != cudaSuccess) (void)cudaGetLastError();
  if (device.dead()) {
    copy_text(facts->notice, sizeof(facts->notice), "unusable until the process restarts: " + device.failure());
    return;
  }
  device.enter();
  std::size_t total = 0;
  device.check(cudaMemGetInfo(&facts->free_bytes, &total), "cudaMemGetInfo");
  facts->free_bytes += device.memory().kept_bytes();
  copy_text(facts->notice, sizeof(facts->notice), device.matmul_plans().notice());
}

const DeviceLibrary& library() {
  static const OpTable table = make_table("cuda");
  static const DeviceLibrary library{
      "cuda",
      []() noexcept { return static_cast<int>(devices().usable.size()); },
      []() noexcept { return devices().reason.c_str(); },
      [](int ordinal) -> void* { return &devices().open(ordinal); },
      facts,
      &table,
      runtime::timer_start,
      runtime::timer_stop,
      runtime::flush_l2,
      nullptr,
  };
  return library;
}

}  // namespace
}  // namespace siglip2::cuda

#if defined(_WIN32)
#define SIGLIP2_EXPORT __declspec(dllexport)
#else
#define SIGLIP2_EXPORT __attribute__((visibility("default")))
#endif

extern "C" SIGLIP2_EXPORT const siglip2::DeviceLibrary* siglip2_device_library(int version) {
  return version == siglip2::kDeviceLibraryVersion ? &siglip2::cuda::library() : nullptr;
}
