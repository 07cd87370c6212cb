#include "simt/device_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "simt/block.h"
#include "tensor/error.h"

namespace siglip2::simt {
namespace {

constexpr std::size_t kReserved = std::size_t{1} << 38;
constexpr std::size_t kPage = 4096;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

class DeviceMemory {
 public:
  // Allocations end within a page that is theirs alone, and the page after stays empty.
  void* allocate(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    reserve();
    if (bytes > free_bytes()) throw_out_of_memory(bytes);
    const std::size_t room = (std::max<std::size_t>(bytes, 1) + kPage - 1) / kPage * kPage + kPage;
    std::uintptr_t address = 0;
    for (auto gap = gaps_.begin(); gap != gaps_.end(); ++gap) {
      if (gap->second < room) continue;
      address = gap->first;
      const std::size_t left = gap->second - room;
      gaps_.erase(gap);
      if (left != 0) gaps_[address + room] = left;
      break;
    }
    if (address == 0) {
      if (room > kReserved - (end_ - begin_)) throw_out_of_memory(bytes);
      address = end_;
      end_ += room;
    }
    allocations_[address] = bytes;
    used_ += bytes;
    auto* const memory = reinterpret_cast<unsigned char*>(address);
    mprotect(memory, room, PROT_READ | PROT_WRITE);
    std::memset(memory, 0xFF, room);
    if (unlocked_ == 0) mprotect(memory, room, PROT_NONE);
    return memory;
  }

  void release(void* memory) {
    if (memory == nullptr) return;
    const std::lock_guard lock(mutex_);
    const auto found = allocations_.find(reinterpret_cast<std::uintptr_t>(memory));
    if (found == allocations_.end()) return;
    const std::size_t room = (std::max<std::size_t>(found->second, 1) + kPage - 1) / kPage * kPage + kPage;
    used_ -= found->second;
    std::uintptr_t begin = found->first;
    std::size_t size = room;
    allocations_.erase(found);
    madvise(memory, room, MADV_DONTNEED);
    const auto after = gaps_.lower_bound(begin);
    if (after != gaps_.end() && after->first == begin + size) {
      size += after->second;
      gaps_.erase(after);
    }
    auto before = gaps_.lower_bound(begin);
    if (before != gaps_.begin() && (--before)->first + before->second == begin) {
      begin = before->first;
      size += before->second;
      gaps_.erase(before);
    }
    gaps_[begin] = size;
  }

  void check(const void* memory, std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    const auto address = reinterpret_cast<std::uintptr_t>(memory);
    if (address < begin_ || address >= begin_ + kReserved || begin_ == 0) {
      if (!strict_) return;
      throw Error(kErrorCuda, "the device is told to use " + std::to_string(bytes) + " bytes that are not its own");
    }
    auto after = allocations_.upper_bound(address);
    if (after != allocations_.begin()) {
      const auto& [begin, size] = *--after;
      if (address - begin <= size && bytes <= size - (address - begin)) return;
    }
    throw Error(kErrorCuda,
                "the device is told to use " + std::to_string(bytes) + " bytes that lie outside of its allocations");
  }

  void unlock() {
    const std::lock_guard lock(mutex_);
    if (unlocked_++ == 0) protect(PROT_READ | PROT_WRITE);
  }
  void lock() {
    const std::lock_guard lock(mutex_);
    if (--unlocked_ == 0) protect(PROT_NONE);
  }

  void be_strict() {
    const std::lock_guard lock(mutex_);
    strict_ = true;
  }
  void set_limit(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    limit_ = bytes;
  }
  std::size_t limit() {
    const std::lock_guard lock(mutex_);
    return limit_;
  }
  std::size_t free() {
    const std::lock_guard lock(mutex_);
    return free_bytes();
  }

 private:
  std::size_t free_bytes() const { return limit_ > used_ ? limit_ - used_ : 0; }

  void reserve() {
    if (begin_ != 0) return;
    void* const mapped = mmap(nullptr, kReserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) throw_out_of_memory(0);
    begin_ = end_ = (reinterpret_cast<std::uintptr_t>(mapped) + kHugePage - 1) / kHugePage * kHugePage;
    // Advice only: fewer pages to protect and unprotect.
    (void)madvise(reinterpret_cast<void*>(begin_), kReserved - kHugePage, MADV_HUGEPAGE);
  }

  void protect(int protection) const {
    if (end_ != begin_) mprotect(reinterpret_cast<void*>(begin_), end_ - begin_, protection);
  }

  [[noreturn]] void throw_out_of_memory(std::size_t requested) const {
    constexpr std::size_t most = INT64_MAX;
    throw Error(kErrorOutOfMemory,
                "not enough memory on the emulated device: " + std::to_string(requested) + " bytes are needed, " +
                    std::to_string(free_bytes()) + " are free",
                {{"requestedBytes", static_cast<std::int64_t>(std::min(requested, most))},
                 {"freeBytes", static_cast<std::int64_t>(std::min(free_bytes(), most))}});
  }

  std::mutex mutex_;
  std::uintptr_t begin_ = 0, end_ = 0;
  std::map<std::uintptr_t, std::size_t> allocations_, gaps_;
  std::size_t used_ = 0;
  std::size_t limit_ = std::size_t{8} << 30;
  int unlocked_ = 0;
  bool strict_ = false;
};

// Never destroyed: threads may still release memory while the process ends.
DeviceMemory& device_memory() {
  static auto* const memory = new DeviceMemory;
  return *memory;
}

}  // namespace

void* allocate_device_memory(std::size_t bytes) {
  return device_memory().allocate(bytes);
}
void release_device_memory(void* memory) noexcept {
  device_memory().release(memory);
}
void check_device_range(const void* memory, std::size_t bytes) {
  device_memory().check(memory, bytes);
}
void make_device_memory_strict() {
  device_memory().be_strict();
}
DeviceMemoryAccess::DeviceMemoryAccess() {
  device_memory().unlock();
}
DeviceMemoryAccess::~DeviceMemoryAccess() {
  device_memory().lock();
}
void limit_device_memory(std::size_t bytes) {
  device_memory().set_limit(bytes);
}
std::size_t device_memory_bytes() {
  return device_memory().limit();
}
std::size_t free_device_memory_bytes() {
  return device_memory().free();
}

}  // namespace siglip2::simt
