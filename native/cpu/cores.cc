// How many cores this process may use. The only file that knows about affinity masks.
#include "cpu/thread_pool.h"

#include <thread>

#if defined(__linux__)
#include <sched.h>
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

}  // namespace siglip2::cpu
