#include "backend/device.h"

#include <utility>

#include "cpu/cpu_backend.h"
#include "cpu/cpu_features.h"
#include "cpu/memory.h"
#include "tensor/error.h"

namespace siglip2 {

std::vector<Device*> all_devices() {
  // Never destroyed: work may still be running while the process exits.
  static const auto* const devices = new std::vector<Device*>{
      new Device("cpu", cpu::chosen_instruction_set(), cpu::cpu_table()),
      new Device("reference", "double precision", cpu::reference_table()),
  };
  return *devices;
}

Device& find_device(const std::string& name) {
  std::string known;
  for (Device* device : all_devices()) {
    if (device->name() == name) return *device;
    known += known.empty() ? device->name() : ", " + device->name();
  }
  throw Error(kErrorNoDevice, "device \"" + name + "\" does not exist here; there are: " + known);
}

void require_host_memory(std::size_t bytes) {
  cpu::require_memory(bytes);
}

DeviceBuffer::DeviceBuffer(Device& device, std::size_t bytes)
    : device_(&device), data_(device.table().allocate(device.state(), bytes)), bytes_(bytes) {}

DeviceBuffer::~DeviceBuffer() {
  if (data_ != nullptr) device_->table().release(device_->state(), data_);
}

DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept
    : device_(other.device_), data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  if (this != &other) {
    if (data_ != nullptr) device_->table().release(device_->state(), data_);
    device_ = other.device_;
    data_ = std::exchange(other.data_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
  }
  return *this;
}

}  // namespace siglip2
