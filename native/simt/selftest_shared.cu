// Self-tests: races and other misuse of shared memory.
#include "cuda/prim/barrier.h"
#include "cuda/prim/launch.h"
#include "cuda/prim/shared_memory.h"
#include "cuda/prim/vector.h"
#include "cuda/prim/warp.h"
#include "simt/selftest.h"

namespace siglip2::cuda {
namespace {

using simt::SelfTestGroup;
using simt::SelfTestMemory;

constexpr int kThreads = 128;

__device__ float* shared_floats() {
  return reinterpret_cast<float*>(shared_memory());
}

// Each thread reads what its neighbour wrote.
template <bool kDefective>
__global__ void read_after_write(float* output) {
  float* const values = shared_floats();
  values[threadIdx.x] = static_cast<float>(threadIdx.x);
  if (!kDefective) block_barrier();
  output[threadIdx.x] = values[(threadIdx.x + 1) % kThreads];
}

template <bool kDefective>
__global__ void write_after_read(float* output) {
  float* const values = shared_floats();
  values[threadIdx.x] = static_cast<float>(threadIdx.x);
  block_barrier();
  output[threadIdx.x] = values[(threadIdx.x + 40) % kThreads];
  if (!kDefective) block_barrier();
  values[threadIdx.x] = 0;
}

// All threads read one word, then one writes it.
template <bool kDefective>
__global__ void write_after_many_reads(float* output) {
  float* const values = shared_floats();
  if (threadIdx.x == 77) values[0] = 7;
  block_barrier();
  output[threadIdx.x] = values[0];
  if (!kDefective) block_barrier();
  if (threadIdx.x == 5) values[0] = 5;
}

template <bool kDefective>
__global__ void write_after_write(float* output) {
  float* const values = shared_floats();
  values[threadIdx.x] = 1;
  if (!kDefective) block_barrier();
  values[(threadIdx.x + 32) % kThreads] = 2;
  block_barrier();
  output[threadIdx.x] = values[threadIdx.x];
}

// Halves of words by different threads are no race; the same half is.
template <bool kDefective>
__global__ void half_words(float* output) {
  auto* const halves = reinterpret_cast<std::uint16_t*>(shared_memory());
  halves[threadIdx.x] = static_cast<std::uint16_t>(threadIdx.x);
  if (kDefective && threadIdx.x == 3) halves[2] = 0;
  block_barrier();
  output[threadIdx.x] = static_cast<float>(*reinterpret_cast<std::uint32_t*>(halves + threadIdx.x / 2 * 2));
}

// Lanes of one warp, which on old hardware would be in step.
template <bool kDefective>
__global__ void within_warp(float* output) {
  float* const values = shared_floats();
  values[threadIdx.x] = 1;
  if (!kDefective) warp_barrier();
  output[threadIdx.x] = values[threadIdx.x ^ 1];
}

// A barrier of the warp does not order other warps.
template <bool kDefective>
__global__ void warp_barrier_for_block(float* output) {
  float* const values = shared_floats();
  values[threadIdx.x] = 1;
  if (kDefective) {
    warp_barrier();
  } else {
    block_barrier();
  }
  output[threadIdx.x] = values[threadIdx.x ^ 64];
}

// Shuffles order no memory.
template <bool kDefective>
__global__ void shuffle_for_barrier(float* output) {
  float* const values = shared_floats();
  values[threadIdx.x] = 1;
  if (kDefective) {
    output[threadIdx.x] = shuffle(1.0f, 0);
  } else {
    warp_barrier();
  }
  output[threadIdx.x] = values[threadIdx.x ^ 1];
}

// A warp that writes and arrives, and one that waits and reads.
template <bool kDefective>
__global__ void arrive_before_write(float* output) {
  float* const values = shared_floats();
  if (warp_index() == 0) {
    if (kDefective) named_barrier_arrive(1, 64);
    values[threadIdx.x] = 1;
    if (!kDefective) named_barrier_arrive(1, 64);
  } else if (warp_index() == 1) {
    named_barrier_wait(1, 64);
    output[threadIdx.x] = values[threadIdx.x - 32];
  }
}

// Who only arrives learns nothing.
template <bool kDefective>
__global__ void read_after_arrive(float* output) {
  float* const values = shared_floats();
  if (warp_index() == 1) {
    values[threadIdx.x] = 1;
    named_barrier_wait(1, 64);
  } else if (warp_index() == 0) {
    if (kDefective) {
      named_barrier_arrive(1, 64);
    } else {
      named_barrier_wait(1, 64);
    }
    output[threadIdx.x] = values[threadIdx.x + 32];
  }
}

// A buffer given back and forth: the writer must know that the readers are through.
template <bool kDefective>
__global__ void reuse_of_buffer(float* output) {
  float* const values = shared_floats();
  for (int i = 0; i < 3; ++i) {
    if (warp_index() == 0) {
      if (!kDefective && i > 0) named_barrier_wait(2, 64);
      values[lane_index()] = static_cast<float>(i);
      named_barrier_arrive(1, 64);
    } else if (warp_index() == 1) {
      named_barrier_wait(1, 64);
      output[threadIdx.x] = values[lane_index()];
      if (!kDefective && i < 2) named_barrier_arrive(2, 64);
    }
  }
}

template <bool kDefective>
__global__ void uninitialised(float* output) {
  float* const values = shared_floats();
  if (!kDefective || threadIdx.x != 9) values[threadIdx.x] = 1;
  block_barrier();
  output[threadIdx.x] = values[threadIdx.x ^ 1];
}

template <bool kDefective>
__global__ void half_uninitialised(float* output) {
  auto* const halves = reinterpret_cast<std::uint16_t*>(shared_memory());
  if (!kDefective || threadIdx.x != 9) halves[threadIdx.x] = 1;
  block_barrier();
  output[threadIdx.x] = static_cast<float>(*reinterpret_cast<std::uint32_t*>(halves + threadIdx.x / 2 * 2));
}

template <bool kDefective>
__global__ void beyond_shared(float* output) {
  float* const values = shared_floats();
  values[threadIdx.x + (kDefective ? 1 : 0)] = 1;
  output[threadIdx.x] = 1;
}

template <bool kDefective>
__global__ void misaligned_vector(float* output) {
  float* const values = shared_floats();
  values[threadIdx.x] = 1;
  block_barrier();
  if (threadIdx.x < 8) output[threadIdx.x] = load_vector<4>(values + threadIdx.x * 4 + (kDefective ? 2 : 0))[1];
}

template <void (*kDefect)(float*), void (*kCorrect)(float*), std::int64_t kBlocks = 1>
void run(bool defective) {
  OpContext context;
  SelfTestMemory<float> output{std::vector<float>(kThreads)};
  launch(context, "self-test", defective ? kDefect : kCorrect, {kBlocks, kThreads, kThreads * sizeof(float)},
         {writes(output.data(), output.size())}, output.data());
}

#define SELF_TEST(name, finding) {"shared." #name, finding, run<name<true>, name<false>>}

const SelfTestGroup group({
    SELF_TEST(read_after_write, "of shared memory"),
    SELF_TEST(write_after_read, "race: "),
    SELF_TEST(write_after_many_reads, "race: writes"),
    SELF_TEST(write_after_write, "race: writes"),
    SELF_TEST(half_words, "race: writes"),
    SELF_TEST(within_warp, "of shared memory"),
    SELF_TEST(warp_barrier_for_block, "of shared memory"),
    SELF_TEST(shuffle_for_barrier, "race: reads"),
    SELF_TEST(arrive_before_write, "of shared memory"),
    SELF_TEST(read_after_arrive, "of shared memory"),
    SELF_TEST(reuse_of_buffer, "thread "),
    SELF_TEST(uninitialised, "reads uninitialised"),
    SELF_TEST(half_uninitialised, "reads uninitialised"),
    SELF_TEST(beyond_shared, "writes 4 bytes at offset 512 of shared memory, which has 512 bytes"),
    SELF_TEST(misaligned_vector, "not aligned to 16 bytes"),
});

}  // namespace
}  // namespace siglip2::cuda
