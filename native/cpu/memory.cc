// The only file that asks the operating system about memory.
#include "cpu/memory.h"

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <string>

#include "tensor/error.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace siglip2::cpu {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;
// Below this, asking the system first would cost more than it tells.
constexpr std::size_t kLargeBlock = std::size_t{32} << 20;

constexpr std::size_t kUnlimited = std::numeric_limits<std::size_t>::max();

std::size_t round_up(std::size_t bytes, std::size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

[[noreturn]] void throw_out_of_memory(std::size_t requested, std::size_t available) {
  throw Error(
      kErrorOutOfMemory,
      "not enough memory: " + std::to_string(requested) + " bytes are needed, " + std::to_string(available) +
          " are free",
      {{"requestedBytes", static_cast<std::int64_t>(requested)}, {"freeBytes", static_cast<std::int64_t>(available)}});
}

#if defined(__linux__)
// A file that holds one number of bytes, or the word "max".
std::size_t read_limit(const char* path) {
  std::ifstream file(path);
  std::size_t value = 0;
  return file >> value ? value : kUnlimited;
}
#endif

}  // namespace

std::size_t available_memory() {
#if defined(__linux__)
  std::size_t available = kUnlimited;
  std::ifstream information("/proc/meminfo");
  for (std::string key; information >> key;) {
    if (key == "MemAvailable:") {
      std::size_t kibibytes = 0;
      if (information >> kibibytes) available = kibibytes * 1024;
      break;
    }
    information.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  const std::size_t limit = read_limit("/sys/fs/cgroup/memory.max");
  const std::size_t current = read_limit("/sys/fs/cgroup/memory.current");
  if (limit != kUnlimited && current != kUnlimited) {
    const std::size_t left = limit > current ? limit - current : 0;
    if (left < available) available = left;
  }
  return available;
#else
  return kUnlimited;
#endif
}

void* allocate(std::size_t bytes) {
  if (bytes == 0) bytes = kAlignment;
  if (bytes > kUnlimited / 2) throw_out_of_memory(bytes, available_memory());
  const bool large = bytes >= kLargeBlock;
  if (large) {
    const std::size_t available = available_memory();
    if (bytes > available) throw_out_of_memory(bytes, available);
  }
  const std::size_t alignment = large ? kHugePage : kAlignment;
  const std::size_t rounded = round_up(bytes, alignment);
  void* memory = std::aligned_alloc(alignment, rounded);
  if (memory == nullptr) throw_out_of_memory(bytes, available_memory());
#if defined(__linux__)
  // Advice only: without huge pages the block works all the same.
  if (large) (void)madvise(memory, rounded, MADV_HUGEPAGE);
#endif
  return memory;
}

void release(void* memory) noexcept {
  std::free(memory);
}

}  // namespace siglip2::cpu
