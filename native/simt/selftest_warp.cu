// Self-tests: collectives of divergent warps, barriers that do not add up, and results of shuffles and ballots.
#include "cuda/prim/barrier.h"
#include "cuda/prim/bounds.h"
#include "cuda/prim/launch.h"
#include "cuda/prim/math.h"
#include "cuda/prim/warp.h"
#include "simt/selftest.h"

namespace siglip2::cuda {
namespace {

using simt::self_test_expect;
using simt::SelfTestGroup;
using simt::SelfTestMemory;

constexpr int kThreads = 96;

template <bool kDefective>
__global__ void divergent_shuffle(float* output) {
  float value = static_cast<float>(threadIdx.x);
  if (!kDefective || lane_index() < 16) value = shuffle_xor(value, 1);
  value += shuffle_xor(value, 2);
  output[threadIdx.x] = value;
}

template <bool kDefective>
__global__ void divergent_operations(float* output) {
  float value = 1;
  if (kDefective && lane_index() == 31) {
    value = static_cast<float>(ballot(true));
  } else {
    value = shuffle(value, 3);
  }
  if (!kDefective) value += static_cast<float>(ballot(true));
  output[threadIdx.x] = value;
}

template <bool kDefective>
__global__ void ended_lanes(float* output) {
  if (kDefective && threadIdx.x == 40) return;
  output[threadIdx.x] = warp_sum(1.0f);
}

template <bool kDefective>
__global__ void ended_before_barrier(float* output) {
  output[threadIdx.x] = 1;
  if (kDefective && warp_index() == 2) return;
  block_barrier();
}

template <bool kDefective>
__global__ void too_few_at_barrier(float* output) {
  output[threadIdx.x] = 1;
  if (warp_index() < 2) named_barrier_wait(3, kDefective ? 96 : 64);
}

template <bool kDefective>
__global__ void counts_disagree(float* output) {
  output[threadIdx.x] = 1;
  named_barrier_wait(3, kDefective && warp_index() == 1 ? 64 : 96);
}

// Two warps at one barrier, one at another, each waiting for the others.
template <bool kDefective>
__global__ void barriers_disagree(float* output) {
  output[threadIdx.x] = 1;
  named_barrier_wait(kDefective && warp_index() == 1 ? 2 : 1, 96);
}

template <bool kDefective>
__global__ void nobody_waits(float* output) {
  output[threadIdx.x] = 1;
  if (kDefective ? warp_index() == 0 : warp_index() < 2) named_barrier_arrive(1, 64);
}

template <bool kDefective>
__global__ void arrives_twice(float* output) {
  output[threadIdx.x] = 1;
  if (warp_index() == 0) {
    named_barrier_arrive(1, 96);
    if (kDefective) named_barrier_arrive(1, 96);
  } else {
    named_barrier_wait(1, 96);
  }
}

// Lanes get the values of the lanes they name, in 4 and 8 bytes; sums and maxima over groups.
__global__ void exchange(float* output) {
  const int lane = lane_index();
  const bool right = shuffle(10 * lane, (lane + 5) % 32) == 10 * ((lane + 5) % 32) &&
                     shuffle_xor(static_cast<double>(lane), 9) == static_cast<double>(lane ^ 9) &&
                     ballot(lane % 3 == 0) == 0x49249249u && warp_sum(lane) == 496 && warp_sum<8>(1) == 8 &&
                     warp_max<4>(lane) == (lane | 3);
  output[threadIdx.x] = right ? 1.0f : 0.0f;
}

// Approximate functions stay within the errors they state, and give the same for the same.
__global__ void approximations(float* output) {
  const float x = static_cast<float>(threadIdx.x) / 16 - 3;
  const float error = (exp2_fast(x) - std::exp2(x)) / std::exp2(x);
  const bool right =
      std::fabs(error) < 3e-7f && std::fabs(tanh_fast(x) - std::tanh(x)) < 5e-4f && exp2_fast(x) == exp2_fast(x);
  output[threadIdx.x] = right ? 1.0f : 0.0f;
}

template <void (*kDefect)(float*), void (*kCorrect)(float*)>
void run(bool defective) {
  OpContext context;
  SelfTestMemory<float> output{std::vector<float>(kThreads)};
  launch(context, "self-test", defective ? kDefect : kCorrect, {1, kThreads}, {writes(output.data(), output.size())},
         output.data());
}

// For kernels that write 1 where all is right.
template <void (*kKernel)(float*)>
void check(bool) {
  OpContext context;
  SelfTestMemory<float> output{std::vector<float>(kThreads)};
  launch(context, "self-test", kKernel, {1, kThreads}, {writes(output.data(), output.size())}, output.data());
  self_test_expect(output.read() == std::vector<float>(kThreads, 1.0f), "a thread found a wrong value");
}

#define SELF_TEST(name, finding) {"warp." #name, finding, run<name<true>, name<false>>}

const SelfTestGroup group({
    SELF_TEST(divergent_shuffle, "the warp is divergent"),
    SELF_TEST(divergent_operations, "the warp is divergent"),
    SELF_TEST(ended_lanes, "lanes of "),
    SELF_TEST(ended_before_barrier, "deadlock: threads 0 to 63 wait in block_barrier at "),
    SELF_TEST(too_few_at_barrier, "deadlock"),
    SELF_TEST(counts_disagree, "expects"),
    SELF_TEST(barriers_disagree, "deadlock"),
    SELF_TEST(nobody_waits, "has 32 arrivals of 64"),
    SELF_TEST(arrives_twice, "barrier 1 "),
    {"warp.exchange", nullptr, check<exchange>},
    {"warp.approximations", nullptr, check<approximations>},
});

}  // namespace
}  // namespace siglip2::cuda
