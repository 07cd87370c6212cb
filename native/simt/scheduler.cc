// Which thread runs next, and the life of blocks.
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <mutex>
#include <numeric>
#include <random>

#include "simt/block.h"
#include "simt/device_memory.h"
#include "simt/settings.h"
#include "tensor/error.h"

namespace siglip2::simt {

Block block;
thread_local Thread* current __attribute__((tls_model("initial-exec"))) = nullptr;

namespace {

std::uint64_t first_seed() {
  const char* const set = std::getenv("SIGLIP2_SIMT_SEED");
  return set != nullptr ? std::strtoull(set, nullptr, 10) : std::random_device{}() % 1'000'000;
}

constexpr std::size_t kPage = 4096;
constexpr std::size_t kStackStride = kStackBytes + kPage;

// Stacks for all threads that a block can have, each above a page that may not be touched. The system provides memory
// only for what is used.
unsigned char* stacks() {
  static unsigned char* const memory = [] {
    const std::size_t bytes = kStackStride * kMostThreads;
    void* const mapped =
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) throw Error(kErrorOutOfMemory, "no memory for the stacks of the emulated device");
    for (int i = 0; i < kMostThreads; ++i)
      mprotect(static_cast<unsigned char*>(mapped) + static_cast<std::size_t>(i) * kStackStride, kPage, PROT_NONE);
    return static_cast<unsigned char*>(mapped);
  }();
  return memory;
}

Thread& thread_of(const Warp& warp, int lane) {
  return block.threads[static_cast<std::size_t>(warp.index * kWarp + lane)];
}

int lowest(std::uint32_t bits) {
  return __builtin_ctz(bits);
}
int highest(std::uint32_t bits) {
  return 31 - __builtin_clz(bits);
}
// A set bit, from `from` on in a circle.
int next_bit(std::uint32_t bits, int from) {
  const std::uint32_t above = bits & (~0u << (from & 31));
  return lowest(above != 0 ? above : bits);
}
int previous_bit(std::uint32_t bits, int from) {
  const std::uint32_t below = bits & (~0u >> (31 - (from & 31)));
  return highest(below != 0 ? below : bits);
}

// The thread to run, after one of `warp` has parked or ended.
Thread& pick(Warp& warp) {
  const std::uint32_t warps = block.ready_warps;
  if (warps == 0) fail_deadlock();
  switch (block.schedule) {
    case Schedule::kRoundRobin: {
      // A warp's turn ends when its lanes have done something together.
      const bool stay = warp.ready != 0 && !warp.turn_over;
      warp.turn_over = false;
      Warp& next = stay ? warp : block.warps[next_bit(warps, warp.index + 1)];
      return thread_of(next, lowest(next.ready));
    }
    case Schedule::kReverse: {
      const bool stay = warp.ready != 0 && !warp.turn_over;
      warp.turn_over = false;
      Warp& next = stay ? warp : block.warps[previous_bit(warps, warp.index + 31)];
      return thread_of(next, highest(next.ready));
    }
    case Schedule::kAhead:
      for (int i = 0; i < block.warp_count; ++i) {
        const Warp& next = block.warps[block.priority[i]];
        if (next.ready != 0) return thread_of(next, lowest(next.ready));
      }
      break;
    case Schedule::kRandom: {
      const std::uint64_t random = block.random.next();
      const bool stay = warp.ready != 0 && (random & 7) != 0;
      Warp& next = stay ? warp : block.warps[next_bit(warps, static_cast<int>(random >> 8 & 31))];
      return thread_of(next, next_bit(next.ready, static_cast<int>(random >> 16 & 31)));
    }
  }
  __builtin_unreachable();
}

void leave(Thread& me) {
  Warp& warp = *me.warp;
  warp.ready &= ~(1u << me.lane);
  if (warp.ready == 0) block.ready_warps &= ~(1u << warp.index);
}

void end_thread(Thread& me) {
  end_copies(me);
  Warp& warp = *me.warp;
  if (warp.arrived != 0)
    fail("the thread ends while other lanes of its warp wait in " + std::string(warp.operation) + " at " +
         describe(warp.site));
  me.done = true;
  warp.done |= 1u << me.lane;
  if (--block.threads_left == 0) {
    for (const Barrier& barrier : block.barriers)
      if (barrier.arrived != 0)
        fail("the block ends while barrier " + std::to_string(&barrier - block.barriers) + " has " +
             std::to_string(barrier.arrived) + " arrivals of " + std::to_string(barrier.expected));
    Fiber::switch_to(me.fiber, block.host);
  }
  leave(me);
  Thread& next = pick(warp);
  current = &next;
  Fiber::switch_to(me.fiber, next.fiber);
}

void enter() {
  block.call->run(block.call->data);
  end_thread(*current);
  __builtin_unreachable();
}

void prepare_launch(int threads) {
  block.thread_count = threads;
  block.warp_count = threads / kWarp;
  if (block.threads.size() < static_cast<std::size_t>(threads)) {
    const std::size_t made = block.threads.size();
    block.threads.resize(static_cast<std::size_t>(threads));
    for (std::size_t i = made; i < block.threads.size(); ++i) {
      Thread& thread = block.threads[i];
      thread.index = static_cast<int>(i);
      thread.lane = thread.index % kWarp;
      thread.warp = &block.warps[thread.index / kWarp];
      thread.stamp_base = static_cast<Stamp>(i) << kEpochBits;
      thread.stack = reinterpret_cast<std::uintptr_t>(stacks()) + i * kStackStride + kPage;
    }
  }
  settings.launches++;
  block.seed = settings.seed;
  block.launch = settings.launches;
  block.random = Random(Random::mix(settings.seed) + settings.launches);
  block.schedule = settings.schedule.value_or(static_cast<Schedule>(block.random.next() % 4));
  block.copies_land_late = block.random.next() % 2 == 0;
  for (int i = 0; i < block.warp_count; ++i)
    block.priority[i] = static_cast<std::uint8_t>(i);
  for (int i = block.warp_count - 1; i > 0; --i)
    std::swap(block.priority[i], block.priority[block.random.next() % static_cast<std::uint64_t>(i + 1)]);
}

void prepare_block() {
  for (Barrier& barrier : block.barriers)
    barrier = {};
  for (int i = 0; i < block.warp_count; ++i) {
    Warp& warp = block.warps[i];
    warp = {};
    warp.index = i;
    warp.ready = ~0u;
  }
  block.ready_warps = block.warp_count == kMostWarps ? ~0u : (1u << block.warp_count) - 1;
  for (int i = 0; i < block.thread_count; ++i) {
    Thread& thread = block.threads[static_cast<std::size_t>(i)];
    thread.done = false;
    thread.operation = nullptr;
    thread.site = {};
    reset_copies(thread);
    // Tops at different distances from the page, so that the warm ends of stacks do not share cache sets.
    const std::size_t used = kStackBytes - static_cast<std::size_t>(i) % 32 * 448;
    thread.fiber.prepare(reinterpret_cast<unsigned char*>(thread.stack), used, enter);
  }
  block.threads_left = block.thread_count;
  std::memset(block.shared, 0xFF, block.shared_bytes);
  reset_shared_shadow();
  ++block.serial;
  block.statistics.blocks++;
  block.statistics.threads += static_cast<std::uint64_t>(block.thread_count);
}

void run_block() {
  prepare_block();
  current = block.threads.data();
  current = &pick(block.warps[block.warp_count - 1]);
  Fiber::switch_to(block.host, current->fiber);
  current = nullptr;
  if (!block.failure.empty()) throw Error(kErrorCuda, block.failure);
}

// The i-th block to run: the grid in order, backwards, or strewn.
class BlockOrder {
 public:
  explicit BlockOrder(std::uint64_t count) : count_(count) {
    if (block.schedule == Schedule::kReverse) {
      step_ = count - 1;
      start_ = count - 1;
    } else if (block.schedule != Schedule::kRoundRobin) {
      do
        step_ = block.random.next() % count;
      while (std::gcd(step_, count) != 1);
      start_ = block.random.next() % count;
    }
  }
  std::uint64_t at(std::uint64_t i) const { return (start_ + i * step_) % count_; }

 private:
  std::uint64_t count_, step_ = 1, start_ = 0;
};

unsigned char* shared_arena() {
  static auto* const memory = static_cast<unsigned char*>(std::aligned_alloc(kPage, kMostSharedBytes));
  return memory;
}

}  // namespace

Settings settings{first_seed(), 0, {}};

void park() {
  Thread& me = *current;
  leave(me);
  Thread& next = pick(*me.warp);
  if (&next == &me) return;
  current = &next;
  Fiber::switch_to(me.fiber, next.fiber);
}

void make_ready(Warp& warp) {
  for (int lane = 0; lane < kWarp; ++lane)
    thread_of(warp, lane).operation = nullptr;
  warp.ready = ~0u;
  warp.turn_over = true;
  block.ready_warps |= 1u << warp.index;
}

void advance(Warp& warp) {
  if (++warp.epoch > kEpochMask) fail("more synchronisations than the emulated device can count");
}

void launch(const char* name, std::int64_t blocks, std::int64_t blocks_y, int threads, std::size_t shared_bytes,
            const GlobalMemory& memory, const KernelCall& kernel) {
  static std::mutex one_launch;
  const std::lock_guard lock(one_launch);
  const auto refuse = [name](const std::string& message) {
    throw Error(kErrorCuda, std::string("kernel ") + name + " cannot be launched: " + message);
  };
  if (threads <= 0 || threads > kMostThreads || threads % kWarp != 0)
    refuse(std::to_string(threads) + " threads in a block");
  if (blocks <= 0 || blocks > INT32_MAX || blocks_y <= 0 || blocks_y > 65535)
    refuse("a grid of " + std::to_string(blocks) + " by " + std::to_string(blocks_y) + " blocks");
  if (shared_bytes > kMostSharedBytes) refuse(std::to_string(shared_bytes) + " bytes of shared memory in a block");

  block.kernel_name = name;
  block.call = &kernel;
  block.size = {static_cast<unsigned>(threads), 1, 1};
  block.grid = {static_cast<unsigned>(blocks), static_cast<unsigned>(blocks_y), 1};
  block.shared = shared_arena();
  block.shared_bytes = shared_bytes;
  block.failure.clear();
  block.statistics.launches++;
  prepare_launch(threads);
  declare_global(memory, kernel);
  const DeviceMemoryAccess access;
  const auto count = static_cast<std::uint64_t>(blocks * blocks_y);
  const BlockOrder order(count);
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t index = order.at(i);
    block.coordinates = {static_cast<unsigned>(index % static_cast<std::uint64_t>(blocks)),
                         static_cast<unsigned>(index / static_cast<std::uint64_t>(blocks)), 0};
    run_block();
  }
}

Coordinates thread_coordinates() {
  return {static_cast<unsigned>(current->index), 0, 0};
}
Coordinates block_coordinates() {
  return block.coordinates;
}
Coordinates block_size() {
  return block.size;
}
Coordinates grid_size() {
  return block.grid;
}
unsigned char* shared_memory() {
  return block.shared;
}

float jitter(float value, float relative_error) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const std::uint64_t random = Random::mix(bits ^ settings.seed << 32);
  const double unit = static_cast<double>(random >> 11) * 0x1p-52 - 1.0;
  return static_cast<float>(static_cast<double>(value) * (1.0 + unit * static_cast<double>(relative_error)));
}

}  // namespace siglip2::simt
