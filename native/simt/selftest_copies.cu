// Self-tests: asynchronous copies.
#include "cuda/prim/async_copy.h"
#include "cuda/prim/barrier.h"
#include "cuda/prim/launch.h"
#include "cuda/prim/shared_memory.h"
#include "simt/selftest.h"

namespace siglip2::cuda {
namespace {

using simt::self_test_expect;
using simt::SelfTestGroup;
using simt::SelfTestMemory;

constexpr int kThreads = 64;
constexpr int kPerThread = 4;  // floats in 16 bytes
constexpr int kStages = 3;

__device__ float* slot(int stage) {
  return reinterpret_cast<float*>(shared_memory()) + (stage * kThreads + static_cast<int>(threadIdx.x)) * kPerThread;
}
__device__ const float* part(const float* input, int i) {
  return input + (i * kThreads + static_cast<int>(threadIdx.x)) * kPerThread;
}

template <bool kDefective>
__global__ void missing_wait(const float* input, float* output) {
  async_copy_16(slot(0), part(input, 0));
  async_copy_commit();
  if (!kDefective) async_copy_wait<0>();
  output[threadIdx.x] = slot(0)[1];
  if (kDefective) async_copy_wait<0>();
}

template <bool kDefective>
__global__ void never_waits(const float* input, float* output) {
  async_copy_16(slot(0), part(input, 0));
  async_copy_commit();
  if (!kDefective) async_copy_wait<0>();
  output[threadIdx.x] = 1;
}

template <bool kDefective>
__global__ void missing_commit(const float* input, float* output) {
  async_copy_16(slot(0), part(input, 0));
  if (!kDefective) async_copy_commit();
  async_copy_wait<0>();
  output[threadIdx.x] = slot(0)[1];
}

// One group too many may still be under way.
template <bool kDefective>
__global__ void waits_for_too_few(const float* input, float* output) {
  async_copy_16(slot(0), part(input, 0));
  async_copy_commit();
  async_copy_16(slot(1), part(input, 1));
  async_copy_commit();
  async_copy_wait<kDefective ? 2 : 1>();
  output[threadIdx.x] = slot(0)[3];
  async_copy_wait<0>();
}

// The copying thread knows that its data is there; the others need a barrier.
template <bool kDefective>
__global__ void missing_barrier(const float* input, float* output) {
  async_copy_16(slot(0), part(input, 0));
  async_copy_commit();
  async_copy_wait<0>();
  if (!kDefective) block_barrier();
  output[threadIdx.x] = reinterpret_cast<float*>(shared_memory())[(threadIdx.x + 1) % kThreads * kPerThread];
}

template <bool kDefective>
__global__ void writes_into_copy(const float* input, float* output) {
  async_copy_16(slot(0), part(input, 0));
  async_copy_commit();
  if (!kDefective) async_copy_wait<0>();
  slot(0)[2] = 1;
  output[threadIdx.x] = 1;
  if (kDefective) async_copy_wait<0>();
}

// A ring of stages: the copy into a stage must not begin while others still read it.
template <bool kDefective>
__global__ void overwrites_stage(const float* input, float* output) {
  float sum = 0;
  for (int i = 0; i < kStages - 1; ++i) {
    async_copy_16(slot(i), part(input, i));
    async_copy_commit();
  }
  for (int i = 0; i < 6; ++i) {
    async_copy_wait<kStages - 2>();
    if (!kDefective || i < 3) block_barrier();
    async_copy_16(slot((i + kStages - 1) % kStages), part(input, i + kStages - 1));
    async_copy_commit();
    sum += slot(i % kStages)[0];
    sum += reinterpret_cast<float*>(shared_memory())[(i % kStages * kThreads + (threadIdx.x + 33) % kThreads) * 4];
  }
  async_copy_wait<0>();
  output[threadIdx.x] = sum;
}

template <bool kDefective>
__global__ void misaligned(const float* input, float* output) {
  async_copy_16(slot(0), part(input, 0) + (kDefective ? 2 : 0));
  async_copy_commit();
  async_copy_wait<0>();
  output[threadIdx.x] = slot(0)[0];
}

template <bool kDefective>
__global__ void source_beyond_input(const float* input, float* output) {
  async_copy_16(slot(0), part(input, kDefective ? 8 : 7));
  async_copy_commit();
  async_copy_wait<0>();
  output[threadIdx.x] = slot(0)[0];
}

template <bool kDefective>
__global__ void target_beyond_shared(const float* input, float* output) {
  async_copy_16(slot(kDefective ? 3 : 2), part(input, 0));
  async_copy_commit();
  async_copy_wait<0>();
  output[threadIdx.x] = 1;
}

// The source is read while the copy is under way, whatever is written to it meanwhile.
template <bool kDefective>
__global__ void source_changes(float* values, float* output) {
  async_copy_16(slot(0), part(values, 0));
  async_copy_commit();
  if (!kDefective) async_copy_wait<0>();
  if (!kDefective) block_barrier();
  values[(threadIdx.x + 1) % kThreads * kPerThread] = 5;
  if (kDefective) async_copy_wait<0>();
  output[threadIdx.x] = slot(0)[0];
}

// 16, 8 and 4 bytes, and zeros where there is nothing to copy.
__global__ void values_arrive(const float* input, float* output) {
  const bool even = threadIdx.x % 2 == 0;
  async_copy_16(slot(0), part(input, 0), even);
  async_copy_small<8>(slot(1), part(input, 1), !even);
  async_copy_small<4>(slot(1) + 2, part(input, 1) + 2);
  async_copy_small<4>(slot(1) + 3, part(input, 1) + 3, false);
  async_copy_commit();
  async_copy_wait<0>();
  bool right = slot(1)[2] == part(input, 1)[2] && slot(1)[3] == 0;
  for (int i = 0; i < kPerThread; ++i)
    right &= slot(0)[i] == (even ? part(input, 0)[i] : 0);
  for (int i = 0; i < 2; ++i)
    right &= slot(1)[i] == (even ? 0 : part(input, 1)[i]);
  output[threadIdx.x] = right ? 1.0f : 0.0f;
}

std::vector<float> ramp() {
  std::vector<float> values(kThreads * kPerThread * 8);
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(i + 1);
  return values;
}

constexpr std::size_t kSharedBytes = kStages * kThreads * 16;

template <void (*kDefect)(const float*, float*), void (*kCorrect)(const float*, float*)>
void run(bool defective) {
  OpContext context;
  SelfTestMemory<float> input(ramp()), output{std::vector<float>(kThreads)};
  launch(context, "self-test", defective ? kDefect : kCorrect, {1, kThreads, kSharedBytes},
         {reads(input.data(), input.size()), writes(output.data(), output.size())}, input.data(), output.data());
}

void run_source_changes(bool defective) {
  OpContext context;
  SelfTestMemory<float> values(ramp()), output{std::vector<float>(kThreads)};
  launch(context, "self-test", defective ? source_changes<true> : source_changes<false>, {1, kThreads, kSharedBytes},
         {writes(values.data(), values.size()), writes(output.data(), output.size())}, values.data(), output.data());
}

void run_values_arrive(bool) {
  OpContext context;
  SelfTestMemory<float> input(ramp()), output{std::vector<float>(kThreads)};
  launch(context, "self-test", values_arrive, {1, kThreads, kSharedBytes},
         {reads(input.data(), input.size()), writes(output.data(), output.size())}, input.data(), output.data());
  self_test_expect(output.read() == std::vector<float>(kThreads, 1.0f), "a copy brought a wrong value");
}

#define SELF_TEST(name, finding) {"copies." #name, finding, run<name<true>, name<false>>}

const SelfTestGroup group({
    SELF_TEST(missing_wait, "into which an asynchronous copy is under way"),
    SELF_TEST(never_waits, "ends with 1 asynchronous copies"),
    SELF_TEST(missing_commit, "into which an asynchronous copy is under way"),
    SELF_TEST(waits_for_too_few, "into which an asynchronous copy is under way"),
    SELF_TEST(missing_barrier, "shared memory"),
    SELF_TEST(writes_into_copy, "into which an asynchronous copy is under way"),
    SELF_TEST(overwrites_stage, "shared memory"),
    SELF_TEST(misaligned, "not aligned to 16 bytes"),
    SELF_TEST(source_beyond_input, "bytes after a range of 8192 bytes"),
    SELF_TEST(target_beyond_shared, "reaches beyond its 3072 bytes"),
    {"copies.source_changes", "race: ", run_source_changes},
    {"copies.values_arrive", nullptr, run_values_arrive},
});

}  // namespace
}  // namespace siglip2::cuda
