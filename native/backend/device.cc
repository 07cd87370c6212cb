#include "backend/device.h"

#include <map>
#include <mutex>
#include <utility>

#include "backend/device_libraries.h"
#include "cpu/cpu_backend.h"
#include "cpu/cpu_features.h"
#include "cpu/memory.h"
#include "tensor/error.h"

namespace siglip2 {

namespace {

// The devices of the host: the CPU, and the oracle of the tests.
const std::vector<Device*>& host_devices() {
  // Never destroyed: work may still be running while the process exits.
  static const auto* const devices = new std::vector<Device*>{
      new Device("cpu", cpu::chosen_instruction_set(), cpu::cpu_table()),
      new Device("reference", "double precision", cpu::reference_table()),
  };
  return *devices;
}

std::string name_of_device(const DeviceLibrary& library, int ordinal) {
  return ordinal == 0 ? library.kind : std::string(library.kind) + ":" + std::to_string(ordinal);
}

std::string describe(const DeviceFacts& facts) {
  return std::string(facts.name) + (facts.architecture[0] == 0 ? "" : std::string(", ") + facts.architecture);
}

// The device of a library, opened on first use.
Device& open_device(const DeviceLibrary& library, int ordinal) {
  static auto* const mutex = new std::mutex;
  static auto* const devices = new std::map<std::string, Device*>;
  const std::lock_guard<std::mutex> lock(*mutex);
  const std::string name = name_of_device(library, ordinal);
  Device*& device = (*devices)[name];
  if (device == nullptr) {
    DeviceFacts facts;
    library.facts(ordinal, &facts);
    device = new Device(name, describe(facts), *library.table, library.open(ordinal), &library, ordinal);
  }
  return *device;
}

// The number after "cuda:", or −1.
int ordinal_of(const std::string& digits) {
  if (digits.empty() || digits.size() > 4 || digits.find_first_not_of("0123456789") != std::string::npos) return -1;
  return std::stoi(digits);
}

}  // namespace

Device& find_device(const std::string& name) {
  for (Device* device : host_devices())
    if (device->name() == name) return *device;

  std::string reason = "there is no device of that name";
  const bool simt = name == "simt";
  if (simt || name.rfind("cuda", 0) == 0) {
    const OpenedLibrary& opened = simt ? simt_library() : cuda_library();
    int ordinal = -1;
    if (simt || name == "cuda") ordinal = 0;
    if (name.rfind("cuda:", 0) == 0) ordinal = ordinal_of(name.substr(5));
    if (ordinal >= 0 && ordinal < opened.devices) return open_device(*opened.library, ordinal);
    if (opened.devices == 0) reason = opened.reason;
  }
  std::string known;
  for (const DeviceListing& device : list_devices())
    known += known.empty() ? device.name : ", " + device.name;
  throw Error(kErrorNoDevice, "device \"" + name + "\" is not available: " + reason + "; available: " + known);
}

std::vector<DeviceListing> list_devices() {
  std::vector<DeviceListing> listings;
  for (const Device* device : host_devices())
    listings.push_back({device->name(), device->description(), std::nullopt});
  const auto add = [&](const OpenedLibrary& opened) {
    for (int ordinal = 0; ordinal < opened.devices; ++ordinal) {
      DeviceFacts facts;
      opened.library->facts(ordinal, &facts);
      listings.push_back({name_of_device(*opened.library, ordinal), describe(facts), facts});
    }
  };
  add(cuda_library());
  if (simt_library_opened()) add(simt_library());
  return listings;
}

void Device::start_planning() {
  arena_.start_planning();
  if (table_.start_planning != nullptr) table_.start_planning(state_);
}

void Device::start_running() {
  arena_.start_running();
  if (table_.start_running != nullptr) table_.start_running(state_);
}

std::size_t Device::planned_bytes() const {
  return arena_.planned() + (table_.planned_bytes != nullptr ? table_.planned_bytes(state_) : 0);
}

void Device::begin_pass() {
  if (table_.begin_pass != nullptr) table_.begin_pass(state_);
}

void Device::end_pass() {
  if (table_.end_pass != nullptr) table_.end_pass(state_);
}

void Device::abandon_pass() noexcept {
  if (table_.abandon_pass != nullptr) table_.abandon_pass(state_);
}

void Device::require_memory(std::size_t bytes) const {
  if (library_ == nullptr) return require_host_memory(bytes);
  DeviceFacts facts;
  library_->facts(ordinal_, &facts);
  // A library that does not say how much memory there is cannot be asked.
  if (facts.memory_bytes == 0 || bytes <= facts.free_bytes) return;
  throw Error(kErrorOutOfMemory,
              "device \"" + name_ + "\" needs " + std::to_string(bytes) + " bytes more, but has only " +
                  std::to_string(facts.free_bytes) + " free",
              {{"requestedBytes", static_cast<std::int64_t>(bytes)},
               {"freeBytes", static_cast<std::int64_t>(facts.free_bytes)}});
}

void require_host_memory(std::size_t bytes) {
  cpu::require_memory(bytes);
}

DeviceBuffer::DeviceBuffer(Device& device, std::size_t bytes)
    : device_(&device), data_(device.table().allocate(device.state(), bytes)), bytes_(bytes) {}

void DeviceBuffer::release() noexcept {
  if (data_ == nullptr) return;
  void* const data = std::exchange(data_, nullptr);
  Device& device = *device_;
  const auto release = [&device, data] { device.table().release(device.state(), data); };
  // JavaScript's garbage collector frees tensors; a device's library is called on its executor's thread only.
  if (device.table().host_memory || device.executor().on_thread()) return release();
  try {
    device.executor().submit(release);
  } catch (...) {
    // No memory to queue it: the block is lost.
  }
}

DeviceBuffer::~DeviceBuffer() {
  release();
}

DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept
    : device_(other.device_), data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  if (this != &other) {
    release();
    device_ = other.device_;
    data_ = std::exchange(other.data_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
  }
  return *this;
}

}  // namespace siglip2
