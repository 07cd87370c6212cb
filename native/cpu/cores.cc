// What the system says of its cores: how many this process may use, and their caches. The only file that knows about
// affinity masks.
#include "cpu/caches.h"
#include "cpu/thread_pool.h"

#include <thread>

#if defined(__linux__)
#include <sched.h>
#include <unistd.h>
#endif

namespace siglip2::cpu {

int available_cores() {
#if defined(__linux__)
  cpu_set_t mask;
  if (sched_getaffinity(0, sizeof(mask), &mask) == 0) {
    const int count = CPU_COUNT(&mask);
    if (count > 0) return count;
  }
#endif
  const unsigned count = std::thread::hardware_concurrency();
  return count == 0 ? 1 : static_cast<int>(count);
}

std::int64_t level2_cache_bytes() {
  static const std::int64_t bytes = [] {
#if defined(_SC_LEVEL2_CACHE_SIZE)
    const long size = sysconf(_SC_LEVEL2_CACHE_SIZE);
    if (size > 0) return static_cast<std::int64_t>(size);
#endif
    return std::int64_t{1} << 20;
  }();
  return bytes;
}

}  // namespace siglip2::cpu
