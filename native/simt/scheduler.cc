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

constexpr std::size_t kHugePage = std::size_t{2} << 20;

// Stacks for all threads that a block can have. In huge pages: every switch of threads touches another stack, and would
// miss the address translation cache otherwise. A thread that overruns its stack is found by the memory hooks.
unsigned char* stacks() {
  static unsigned char* const memory = [] {
    const std::size_t bytes = kStackBytes * kMostThreads + 2 * kHugePage;
    void* const mapped =
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) throw Error(kErrorOutOfMemory, "no memory for the stacks of the emulated device");
    const auto start = (reinterpret_cast<std::uintptr_t>(mapped) / kHugePage + 1) * kHugePage;
    auto* const memory = reinterpret_cast<unsigned char*>(start);
    (void)madvise(memory, kStackBytes * kMostThreads, MADV_HUGEPAGE);
    return memory;
  }();
  return memory;
}

// Lowest addresses of the stacks that no thread of the block uses.
std::vector<std::uintptr_t> free_stacks;

void free_all_stacks() {
  free_stacks.clear();
  for (auto i = static_cast<std::size_t>(block.thread_count); i-- > 0;)
    free_stacks.push_back(reinterpret_cast<std::uintptr_t>(stacks()) + i * kStackBytes);
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
  leave(me);
  if (--block.threads_left != 0) return;
  for (const Barrier& barrier : block.barriers)
    if (barrier.arrived != 0)
      fail("the block ends while barrier " + std::to_string(&barrier - block.barriers) + " has " +
           std::to_string(barrier.arrived) + " arrivals of " + std::to_string(barrier.expected));
  Fiber::switch_to(me.fiber, block.host);
}

// Where fibers begin: runs threads one after the other, as long as the next one has not begun elsewhere. Threads that
// never wait thus share one stack.
void enter() {
  for (;;) {
    Thread& me = *current;
    block.call->run(block.call->data);
    end_thread(me);
    Thread& next = pick(*me.warp);
    current = &next;
    if (next.stack == 0) {
      next.stack = me.stack;
      continue;
    }
    free_stacks.push_back(me.stack);
    Fiber::switch_to(me.fiber, next.fiber);
    __builtin_unreachable();
  }
}

void go_to(Fiber& from, Thread& next) {
  current = &next;
  if (next.stack == 0) {
    next.stack = free_stacks.back();
    free_stacks.pop_back();
    // The warm ends of stacks should not share cache sets.
    const std::size_t used = kStackBytes - next.stack / kStackBytes % 32 * 448;
    next.fiber.prepare(reinterpret_cast<unsigned char*>(next.stack), used, enter);
  }
  Fiber::switch_to(from, next.fiber);
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
      thread.warp->index = thread.index / kWarp;
      thread.stamp_base = static_cast<Stamp>(i) << kEpochBits;
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
    warp.ready = ~0u;
    warp.arrived = warp.done = 0;
    warp.turn_over = false;
    warp.epoch = 1;
    std::memset(warp.clock, 0, sizeof warp.clock);
  }
  block.ready_warps = block.warp_count == kMostWarps ? ~0u : (1u << block.warp_count) - 1;
  for (int i = 0; i < block.thread_count; ++i) {
    Thread& thread = block.threads[static_cast<std::size_t>(i)];
    thread.done = false;
    thread.site = {};
    reset_copies(thread);
    thread.stack = 0;
  }
  free_all_stacks();
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
  go_to(block.host, pick(block.warps[block.warp_count - 1]));
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
  static auto* const memory = static_cast<unsigned char*>(std::aligned_alloc(1024, kMostSharedBytes));
  return memory;
}

}  // namespace

Settings settings{first_seed(), 0, {}};

void park() {
  Thread& me = *current;
  leave(me);
  Thread& next = pick(*me.warp);
  if (&next != &me) go_to(me.fiber, next);
}

void make_ready(Warp& warp) {
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

unsigned thread_index() {
  return static_cast<unsigned>(current->index);
}
unsigned block_index_x() {
  return block.coordinates.x;
}
unsigned block_index_y() {
  return block.coordinates.y;
}
unsigned block_threads() {
  return static_cast<unsigned>(block.thread_count);
}
unsigned grid_blocks_x() {
  return block.grid.x;
}
unsigned grid_blocks_y() {
  return block.grid.y;
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
