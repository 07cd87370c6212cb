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
  // `state` is what the device's library calls its own (OpContext::device); null on the host, which has no library.
  Device(std::string name, std::string description, const OpTable& table, void* state = nullptr,
         const DeviceLibrary* library = nullptr, int ordinal = 0)
      : name_(std::move(name)),
        description_(std::move(description)),
        table_(table),
        state_(state),
        library_(library),
        ordinal_(ordinal),
        arena_(table, state) {}

  const std::string& name() const { return name_; }
  const std::string& description() const { return description_; }
  const OpTable& table() const { return table_; }
  void* state() const { return state_; }
  // Null on the host.
  const DeviceLibrary* library() const { return library_; }
  // What an operation on this device runs with.
  OpContext context(int threads = 1) const { return {threads, state_, false}; }
  Executor& executor() { return executor_; }
  // Only for use on the executor's thread.
  Arena& arena() { return arena_; }
  // The memory of a pass: the arena's, and what operations need while they run. See OpTable::start_planning.
  void start_planning();
  void start_running();
  std::size_t planned_bytes() const;
  // Around the running; see OpTable::begin_pass.
  void begin_pass();
  void end_pass();
  void abandon_pass() noexcept;
  // Throws ERR_SIGLIP_OUT_OF_MEMORY, with requested and free bytes, when the device cannot hold that many bytes more.
  void require_memory(std::size_t bytes) const;

 private:
  std::string name_;
  std::string description_;
  const OpTable& table_;
  void* state_;
  const DeviceLibrary* library_;
  int ordinal_;
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
