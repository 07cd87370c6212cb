// The engine's own view of the block that runs: its threads, warps, barriers and clocks. Only simt/ includes this.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "simt/fiber.h"
#include "simt/simt.h"

namespace siglip2::simt {

inline constexpr int kWarp = 32;
inline constexpr int kMostThreads = 1024;
inline constexpr int kMostWarps = kMostThreads / kWarp;
inline constexpr std::size_t kStackBytes = 64 * 1024;
// Shared memory of a block on the chips with least of it (sm_86, sm_89, sm_120): kernels must run there too.
inline constexpr std::size_t kMostSharedBytes = 99 * 1024;
inline constexpr int kBarriers = 16;

inline constexpr const char* kErrorCuda = "ERR_SIGLIP_CUDA";

// The time of an access: which thread, and how many times its warp had synchronised. 0 is no access.
using Stamp = std::uint32_t;
inline constexpr int kEpochBits = 21;
inline constexpr std::uint32_t kEpochMask = (1u << kEpochBits) - 1;

// splitmix64: small, quick, good enough for schedules.
class Random {
 public:
  explicit Random(std::uint64_t seed = 0) : state_(seed) {}
  std::uint64_t next() { return mix(state_ += 0x9E3779B97F4A7C15u); }
  static std::uint64_t mix(std::uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
  }

 private:
  std::uint64_t state_;
};

// A copy from global to shared memory under way.
struct AsyncCopy {
  std::uint32_t shared_offset;
  std::uint32_t bytes;
  const void* source;  // null: zeros
  std::uint64_t group;
  bool landed;
};

struct Warp;

struct Thread {
  Fiber fiber;
  std::uintptr_t stack = 0;  // lowest address; 0 before the thread begins
  int index = 0;
  int lane = 0;
  Warp* warp = nullptr;
  Stamp stamp_base = 0;
  bool done = false;
  // What it waits in, when it does; and the last primitive it came to.
  const char* operation = nullptr;
  Site site;
  std::vector<AsyncCopy> copies;  // not yet waited for, oldest first
  std::uint64_t group = 0;        // the group that the next copy joins
};

// Lanes of a warp go through barriers together, so what a thread knows of other warps its whole warp knows: clocks are
// kept a warp. `epoch` counts the warp's synchronisations; clock[w] is the last epoch of warp w whose accesses are
// ordered before what this warp does now. clock[own] is the last epoch that the warp's own lanes have all behind them.
struct Warp {
  // What lanes bring to an operation and take from it.
  struct alignas(64) Exchange {
    unsigned char bytes[64];
  } exchange[kWarp];
  int index = 0;
  std::uint32_t ready = 0;    // lanes that can run
  std::uint32_t arrived = 0;  // lanes that wait in `operation` for the others
  std::uint32_t done = 0;
  bool turn_over = false;
  const char* operation = nullptr;
  Site site;
  std::uint32_t epoch = 1;
  std::uint32_t clock[kMostWarps] = {};

  template <typename T>
  T& io(int lane) {
    static_assert(sizeof(T) <= sizeof(Exchange));
    return *reinterpret_cast<T*>(exchange[lane].bytes);
  }
};

struct Barrier {
  int expected = 0;
  int arrived = 0;
  std::uint32_t arrived_warps = 0;
  std::uint32_t waiting_warps = 0;
  std::uint32_t clock[kMostWarps] = {};
};

enum class Schedule { kRoundRobin, kReverse, kAhead, kRandom };

struct Statistics {
  std::uint64_t launches = 0, blocks = 0, threads = 0;
  std::uint64_t multiplications = 0, matrix_loads = 0, async_copies = 0, barriers = 0;
  std::uint64_t global_bytes_read = 0, global_bytes_written = 0, shared_bytes_read = 0, shared_bytes_written = 0;
};

struct Block {
  const char* kernel_name = "";
  const KernelCall* call = nullptr;
  std::vector<Thread> threads;
  int thread_count = 0;
  int warp_count = 0;
  int threads_left = 0;
  Warp warps[kMostWarps];
  std::uint32_t ready_warps = 0;
  Barrier barriers[kBarriers];
  Fiber host;
  Coordinates coordinates, grid;
  std::uint32_t serial = 0;  // of the block, over all launches

  unsigned char* shared = nullptr;
  std::size_t shared_bytes = 0;

  Schedule schedule = Schedule::kRoundRobin;
  bool copies_land_late = true;
  std::uint8_t priority[kMostWarps] = {};  // warps in the order of Schedule::kAhead
  Random random;
  std::uint64_t seed = 0, launch = 0;  // for reports

  std::string failure;
  Statistics statistics;
};

// One launch runs at a time.
extern Block block;
// The thread that runs on this host thread, or null when it is not inside a kernel.
extern thread_local Thread* current __attribute__((tls_model("initial-exec")));

inline Stamp stamp(const Thread& thread) {
  return thread.stamp_base | thread.warp->epoch;
}

// scheduler.cc: lets other threads run until this one is ready again.
void park();
void make_ready(Warp& warp);
// Ends an epoch of the warp.
void advance(Warp& warp);

// report.cc: abandons the launch.
[[noreturn]] void fail(const std::string& message);
[[noreturn]] void fail_deadlock();
std::string describe(Site site);
// "thread 3 (last at file:line)", of a stamp.
std::string describe_thread(Stamp stamp);

// async_copies.cc
void reset_copies(Thread& thread);
void end_copies(Thread& thread);
void maybe_land_copies(Thread& thread);

// shared_shadow.cc; offsets from the start of shared memory, in bounds.
void reset_shared_shadow();
void shared_read(const Thread& thread, std::size_t offset, std::size_t bytes);
void shared_write(const Thread& thread, std::size_t offset, std::size_t bytes);
void shared_begin_copy(const Thread& thread, std::size_t offset, std::size_t bytes);
void shared_end_copy(const Thread& thread, std::size_t offset, std::size_t bytes);
// The offset of an address that must lie in shared memory, `bytes` from there included.
std::size_t shared_offset(const void* address, std::size_t bytes);

// global_shadow.cc
void declare_global(const GlobalMemory& memory, const KernelCall& call);
void global_access(const Thread& thread, std::uintptr_t address, std::size_t bytes, bool write);

}  // namespace siglip2::simt
