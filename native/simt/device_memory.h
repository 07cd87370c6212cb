// Memory of the emulated device: a range of addresses that the host may not touch except while the device works, so
// that host code that follows a device pointer crashes here as it would with a GPU.
#pragma once

#include <cstddef>

namespace siglip2::simt {

// New memory is filled with 0xFF. Throws ERR_SIGLIP_OUT_OF_MEMORY.
void* allocate_device_memory(std::size_t bytes);
void release_device_memory(void* memory) noexcept;

// Throws unless the range lies in one allocation. Ranges outside the device's addresses pass unless the device is
// strict: programs without a host side of their own launch kernels on plain memory.
void check_device_range(const void* memory, std::size_t bytes);
void make_device_memory_strict();

// While one lives, device memory can be touched.
class DeviceMemoryAccess {
 public:
  DeviceMemoryAccess();
  ~DeviceMemoryAccess();
  DeviceMemoryAccess(const DeviceMemoryAccess&) = delete;
  DeviceMemoryAccess& operator=(const DeviceMemoryAccess&) = delete;
};

void limit_device_memory(std::size_t bytes);
std::size_t device_memory_bytes();
std::size_t free_device_memory_bytes();

}  // namespace siglip2::simt
