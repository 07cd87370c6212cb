// The only file that asks the operating system about memory.
#include "cpu/memory.h"

#include <algorithm>
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
  constexpr std::size_t most = std::numeric_limits<std::int64_t>::max();
  const auto requested_bytes = static_cast<std::int64_t>(std::min(requested, most));
  const auto free_bytes = static_cast<std::int64_t>(std::min(available, most));
  throw Error(kErrorOutOfMemory,
              "not enough memory: " + std::to_string(requested_bytes) + " bytes are needed, " +
                  std::to_string(free_bytes) + " are free",
              {{"requestedBytes", requested_bytes}, {"freeBytes", free_bytes}});
}

#if defined(__linux__)
// Where a container's limit stands, in both versions of Linux's control groups.
struct ControlGroup {
  const char* limit;
  const char* current;
  const char* statistics;
  const char* inactive_file;
  const char* active_file;
};
constexpr ControlGroup kControlGroups[] = {
    {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat", "inactive_file",
     "active_file"},
    {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes",
     "/sys/fs/cgroup/memory/memory.stat", "total_inactive_file", "total_active_file"},
};

// The number after `key` in a file of keys and numbers; 0 when it is not there.
std::size_t read_entry(const char* path, const std::string& key) {
  std::ifstream file(path);
  std::size_t value = 0;
  for (std::string found; file >> found >> value;)
    if (found == key) return value;
  return 0;
}

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
  for (const ControlGroup& group : kControlGroups) {
    const std::size_t limit = read_limit(group.limit);
    const std::size_t current = read_limit(group.current);
    if (limit == kUnlimited || current == kUnlimited) continue;
    // Cached file contents count as used, although they make way when memory is needed; a checkpoint that has just been
    // read is all in there.
    const std::size_t cached =
        read_entry(group.statistics, group.inactive_file) + read_entry(group.statistics, group.active_file);
    const std::size_t used = current > cached ? current - cached : 0;
    available = std::min(available, limit > used ? limit - used : 0);
  }
  return available;
#else
  return kUnlimited;
#endif
}

void require_memory(std::size_t bytes) {
  if (bytes < kLargeBlock) return;
  const std::size_t available = available_memory();
  if (bytes > available || bytes > kUnlimited / 2) throw_out_of_memory(bytes, available);
}

void* allocate(std::size_t bytes) {
  if (bytes == 0) bytes = kAlignment;
  require_memory(bytes);
  const bool large = bytes >= kLargeBlock;
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

void* Scratch::get(std::size_t bytes) {
  if (bytes_ >= bytes) return memory_;
  // Address space for what comes: memory that smaller scratch has given back is seldom of use to anyone. What is never
  // touched takes none.
  constexpr std::size_t kStep = std::size_t{4} << 20;
  release(memory_);
  memory_ = nullptr;
  bytes_ = 0;
  memory_ = allocate(round_up(bytes, kStep));
  bytes_ = round_up(bytes, kStep);
  return memory_;
}

void* thread_scratch(std::size_t bytes) {
  static thread_local Scratch scratch;
  return scratch.get(bytes);
}

}  // namespace siglip2::cpu
