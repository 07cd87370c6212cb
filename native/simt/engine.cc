#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <string>

#include "simt/fiber.h"
#include "simt/simt.h"
#include "tensor/error.h"

namespace siglip2::simt {
namespace {

constexpr int kWarp = 32;
constexpr std::size_t kStackBytes = 256 * 1024;

struct PendingCopy {
  void* shared;
  const void* source;
  int bytes;
  bool valid;
};

struct Thread {
  Fiber fiber;
  int index = 0;
  bool done = false;
  const char* waiting = nullptr;  // the operation it is parked in
  int barrier = 0;
  Site site;
  void* io = nullptr;
  std::vector<std::vector<PendingCopy>> groups{1};
};

struct Block {
  const std::function<void()>* kernel = nullptr;
  std::vector<Thread> threads;
  std::unique_ptr<unsigned char[]> stacks;
  std::vector<unsigned char> shared;
  Fiber scheduler;
  Thread* current = nullptr;
  Coordinates block, size, grid;
  struct Barrier {
    int arrived = 0;
    int expected = 0;
  } barriers[16];
  std::string failure;
  const char* name = "";
  std::mt19937_64 random{1};
};

thread_local Block* running = nullptr;

[[noreturn]] void fail(const std::string& message) {
  Block& block = *running;
  Thread& thread = *block.current;
  if (block.failure.empty())
    block.failure = message + " (kernel " + block.name + ", block " + std::to_string(block.block.x) + ", thread " +
                    std::to_string(thread.index) + ", " + thread.site.file + ":" + std::to_string(thread.site.line) + ")";
  Fiber::switch_to(thread.fiber, block.scheduler);
  __builtin_unreachable();
}

void park() {
  Block& block = *running;
  Fiber::switch_to(block.current->fiber, block.scheduler);
}

void enter() {
  Block& block = *running;
  (*block.kernel)();
  block.current->done = true;
  Fiber::switch_to(block.current->fiber, block.scheduler);
}

void barrier_arrive(int id, int threads, Site site, bool wait) {
  Block& block = *running;
  Thread& me = *block.current;
  me.site = site;
  Block::Barrier& barrier = block.barriers[id];
  if (barrier.arrived == 0) barrier.expected = threads;
  if (barrier.expected != threads) fail("barrier: threads disagree about how many take part");
  if (++barrier.arrived == threads) {
    barrier.arrived = 0;
    for (Thread& thread : block.threads)
      if (thread.waiting != nullptr && thread.barrier == id + 1) thread.waiting = nullptr;
    return;
  }
  if (!wait) return;
  me.waiting = "barrier";
  me.barrier = id + 1;
  while (me.waiting != nullptr)
    park();
}

// Lanes meet; the last runs `execute` on all their `io`.
template <typename Execute>
void collective(const char* operation, void* io, Site site, Execute execute) {
  Block& block = *running;
  Thread& me = *block.current;
  const int first = me.index / kWarp * kWarp;
  me.waiting = operation;
  me.barrier = 0;
  me.site = site;
  me.io = io;
  void* lanes[kWarp];
  bool all = true;
  for (int lane = 0; lane < kWarp; ++lane) {
    Thread& other = block.threads[static_cast<std::size_t>(first + lane)];
    if (other.waiting == nullptr || other.barrier != 0) {
      all = false;
      continue;
    }
    if (std::strcmp(other.waiting, operation) != 0 || other.site.line != site.line)
      fail(std::string(operation) + ": another lane is in " + other.waiting + " at line " +
           std::to_string(other.site.line));
    lanes[lane] = other.io;
  }
  if (all) {
    execute(lanes);
    for (int lane = 0; lane < kWarp; ++lane)
      block.threads[static_cast<std::size_t>(first + lane)].waiting = nullptr;
    return;
  }
  while (me.waiting != nullptr)
    park();
}

float widen(std::uint32_t bits) {
  bits <<= 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

void run_block(Block& block) {
  running = &block;
  for (auto& barrier : block.barriers)
    barrier = {};
  for (std::size_t i = 0; i < block.threads.size(); ++i) {
    Thread& thread = block.threads[i];
    thread = Thread{};
    thread.index = static_cast<int>(i);
    thread.fiber.prepare(block.stacks.get() + i * kStackBytes, kStackBytes, enter);
  }
  std::memset(block.shared.data(), 0xFF, block.shared.size());
  for (bool left = true; left;) {
    left = false;
    bool progress = false;
    for (Thread& thread : block.threads) {
      if (thread.done) continue;
      left = true;
      if (thread.waiting != nullptr) continue;
      progress = true;
      block.current = &thread;
      Fiber::switch_to(block.scheduler, thread.fiber);
      if (!block.failure.empty()) throw Error("ERR_SIGLIP_CUDA", block.failure);
    }
    if (left && !progress) {
      std::string where;
      for (const Thread& thread : block.threads)
        if (!thread.done && where.size() < 400)
          where += " thread " + std::to_string(thread.index) + " in " + thread.waiting + " at " + thread.site.file + ":" +
                   std::to_string(thread.site.line);
      throw Error("ERR_SIGLIP_CUDA", std::string("kernel ") + block.name + ": deadlock:" + where);
    }
  }
}

}  // namespace

void GlobalMemory::add(const void* data, std::int64_t rows, std::int64_t row_bytes, std::int64_t stride_bytes,
                       bool writable) {
  if (rows <= 0 || row_bytes <= 0) return;
  const auto begin = reinterpret_cast<std::uintptr_t>(data);
  const auto length = static_cast<std::uintptr_t>((rows - 1) * stride_bytes + row_bytes);
  ranges_.push_back({begin, begin + length, static_cast<std::uintptr_t>(row_bytes),
                     static_cast<std::uintptr_t>(stride_bytes), writable});
}

void launch(const char* name, std::int64_t blocks, std::int64_t blocks_y, int threads, std::size_t shared_bytes,
            const GlobalMemory& memory, const std::function<void()>& kernel) {
  (void)memory;
  Block block;
  block.kernel = &kernel;
  block.name = name;
  block.threads.resize(static_cast<std::size_t>(threads));
  block.stacks.reset(new unsigned char[static_cast<std::size_t>(threads) * kStackBytes]);
  std::vector<unsigned char>(shared_bytes + 128).swap(block.shared);
  block.size = {static_cast<unsigned>(threads), 1, 1};
  block.grid = {static_cast<unsigned>(blocks), static_cast<unsigned>(blocks_y), 1};
  for (std::int64_t y = 0; y < blocks_y; ++y) {
    for (std::int64_t x = 0; x < blocks; ++x) {
      block.block = {static_cast<unsigned>(x), static_cast<unsigned>(y), 0};
      run_block(block);
    }
  }
  running = nullptr;
}

Coordinates thread_coordinates() {
  return {static_cast<unsigned>(running->current->index), 0, 0};
}
Coordinates block_coordinates() {
  return running->block;
}
Coordinates block_size() {
  return running->size;
}
Coordinates grid_size() {
  return running->grid;
}

unsigned char* shared_memory() {
  const auto address = reinterpret_cast<std::uintptr_t>(running->shared.data());
  return running->shared.data() + (128 - address % 128) % 128;
}

void block_barrier(Site site) {
  barrier_arrive(0, static_cast<int>(running->threads.size()), site, true);
}
void named_barrier_wait(int id, int threads, Site site) {
  barrier_arrive(id, threads, site, true);
}
void named_barrier_arrive(int id, int threads, Site site) {
  barrier_arrive(id, threads, site, false);
}
void warp_barrier(Site site) {
  collective("warp_barrier", nullptr, site, [](void**) {});
}

void shuffle(const void* value, void* result, std::size_t bytes, int source, Site site) {
  struct Io {
    const void* value;
    void* result;
    int source;
  } io{value, result, source};
  collective("shuffle", &io, site, [bytes](void** lanes) {
    for (int lane = 0; lane < kWarp; ++lane) {
      const Io& mine = *static_cast<Io*>(lanes[lane]);
      std::memcpy(mine.result, static_cast<Io*>(lanes[mine.source & 31])->value, bytes);
    }
  });
}

std::uint32_t ballot(bool predicate, Site site) {
  struct Io {
    bool predicate;
    std::uint32_t result;
  } io{predicate, 0};
  collective("ballot", &io, site, [](void** lanes) {
    std::uint32_t bits = 0;
    for (int lane = 0; lane < kWarp; ++lane)
      bits |= static_cast<std::uint32_t>(static_cast<Io*>(lanes[lane])->predicate) << lane;
    for (int lane = 0; lane < kWarp; ++lane)
      static_cast<Io*>(lanes[lane])->result = bits;
  });
  return io.result;
}

void async_copy(void* shared, const void* source, int bytes, bool valid, Site site) {
  running->current->site = site;
  check_alignment(shared, static_cast<std::size_t>(bytes), site);
  if (valid) check_alignment(source, static_cast<std::size_t>(bytes), site);
  running->current->groups.back().push_back({shared, source, bytes, valid});
}
void async_copy_commit(Site site) {
  running->current->site = site;
  running->current->groups.emplace_back();
}
void async_copy_wait(int pending, Site site) {
  Thread& me = *running->current;
  me.site = site;
  while (me.groups.size() - 1 > static_cast<std::size_t>(pending)) {
    for (const PendingCopy& copy : me.groups.front()) {
      if (copy.valid) {
        std::memcpy(copy.shared, copy.source, static_cast<std::size_t>(copy.bytes));
      } else {
        std::memset(copy.shared, 0, static_cast<std::size_t>(copy.bytes));
      }
    }
    me.groups.erase(me.groups.begin());
  }
}

void load_matrices(std::uint32_t* registers, int count, bool transposed, const void* shared_row, Site site) {
  check_alignment(shared_row, 16, site);
  struct Io {
    std::uint32_t* registers;
    const std::uint16_t* row;
  } io{registers, static_cast<const std::uint16_t*>(shared_row)};
  collective("load_matrices", &io, site, [=](void** lanes) {
    for (int matrix = 0; matrix < count; ++matrix) {
      for (int lane = 0; lane < kWarp; ++lane) {
        std::uint32_t packed = 0;
        for (int half = 0; half < 2; ++half) {
          const int row = transposed ? 2 * (lane % 4) + half : lane / 4;
          const int column = transposed ? lane / 4 : 2 * (lane % 4) + half;
          packed |= static_cast<std::uint32_t>(static_cast<Io*>(lanes[8 * matrix + row])->row[column]) << (16 * half);
        }
        static_cast<Io*>(lanes[lane])->registers[matrix] = packed;
      }
    }
  });
}

void multiply(float* accumulator, const std::uint32_t* a, const std::uint32_t* b, int depth, Site site) {
  struct Io {
    float* accumulator;
    const std::uint32_t* a;
    const std::uint32_t* b;
  } io{accumulator, a, b};
  collective("multiply", &io, site, [depth](void** lanes) {
    float left[16][16], right[16][8];
    for (int lane = 0; lane < kWarp; ++lane) {
      const Io& mine = *static_cast<Io*>(lanes[lane]);
      const int group = lane / 4, pair = 2 * (lane % 4);
      for (int part = 0; part < depth / 8; ++part) {
        for (int half = 0; half < 2; ++half) {
          left[group][8 * part + pair + half] = widen(mine.a[2 * part] >> (16 * half) & 0xFFFF);
          left[group + 8][8 * part + pair + half] = widen(mine.a[2 * part + 1] >> (16 * half) & 0xFFFF);
          right[8 * part + pair + half][group] = widen(mine.b[part] >> (16 * half) & 0xFFFF);
        }
      }
    }
    for (int lane = 0; lane < kWarp; ++lane) {
      float* const d = static_cast<Io*>(lanes[lane])->accumulator;
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + 8 * (i / 2), column = 2 * (lane % 4) + i % 2;
        double sum = d[i];
        for (int k = 0; k < depth; ++k)
          sum += static_cast<double>(left[row][k]) * static_cast<double>(right[k][column]);
        d[i] = static_cast<float>(sum);
      }
    }
  });
}

void check_alignment(const void* address, std::size_t bytes, Site site) {
  running->current->site = site;
  if (reinterpret_cast<std::uintptr_t>(address) % bytes != 0)
    fail("an address is not aligned to " + std::to_string(bytes) + " bytes");
}

bool in_bounds(bool condition, Site) {
  return condition;
}

float jitter(float value, float relative_error) {
  const double unit = static_cast<double>(running->random() >> 11) * 0x1p-52 - 1.0;
  return static_cast<float>(static_cast<double>(value) * (1.0 + unit * static_cast<double>(relative_error)));
}

}  // namespace siglip2::simt
