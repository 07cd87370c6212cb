// Devices: a table of operations, the thread that runs them, and the arena that their activations live in.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backend/arena.h"
#include "backend/device_library.h"
#include "backend/executor.h"
#include "backend/op_table.h"

namespace siglip2 {

class Device {
 public:
  // `state` is what the device's library calls its own (OpContext::device); null on the host.
  Device(std::string name, std::string description, const OpTable& table, void* state = nullptr)
      : name_(std::move(name)),
        description_(std::move(description)),
        table_(table),
        state_(state),
        arena_(table, state) {}

  const std::string& name() const { return name_; }
  const std::string& description() const { return description_; }
  const OpTable& table() const { return table_; }
  void* state() const { return state_; }
  // What an operation on this device runs with.
  OpContext context(int threads = 1) const { return {threads, state_, false}; }
  Executor& executor() { return executor_; }
  // Only for use on the executor's thread.
  Arena& arena() { return arena_; }

 private:
  std::string name_;
  std::string description_;
  const OpTable& table_;
  void* state_;
  Executor executor_;
  Arena arena_;
};

// The device of that name: "cpu", "reference", "cuda" or "cuda:0", "cuda:1", …, "simt"; devices live as long as the
// process. Throws ERR_SIGLIP_NO_DEVICE when it cannot be used, with the reason and the names of those that can.
Device& find_device(const std::string& name);

// What can be said of a device before it is used.
struct DeviceListing {
  std::string name;
  std::string description;
  std::optional<DeviceFacts> facts;  // of devices with a library
};
// Devices that can be used. The emulated one is among them once it has been asked for.
std::vector<DeviceListing> list_devices();

// Throws ERR_SIGLIP_OUT_OF_MEMORY when the host cannot hold that many bytes more: for results, which leave the device.
void require_host_memory(std::size_t bytes);

// A block of device memory. Made on the executor's thread; may go on any.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(Device& device, std::size_t bytes);
  ~DeviceBuffer();
  DeviceBuffer(DeviceBuffer&& other) noexcept;
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;

  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void release() noexcept;

  Device* device_ = nullptr;
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace siglip2
