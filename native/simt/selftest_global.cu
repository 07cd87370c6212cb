// Self-tests: bounds of global memory, and races in it.
#include <stdexcept>

#include "cuda/prim/barrier.h"
#include "cuda/prim/bounds.h"
#include "cuda/prim/launch.h"
#include "cuda/prim/vector.h"
#include "simt/selftest.h"

namespace siglip2::cuda {
namespace {

using simt::SelfTestGroup;
using simt::SelfTestMemory;

constexpr int kThreads = 64;
constexpr int kBlocks = 3;
constexpr int kCount = kThreads * kBlocks - 10;
constexpr int kRows = 5, kColumns = 6, kStride = 8;

__device__ int index() {
  return static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
}

template <bool kDefective>
__global__ void reads_beyond(const float* input, float* output) {
  const float value = kDefective || index() < kCount ? input[index()] : 0;
  if (in_bounds(index() < kCount)) output[index()] = value;
}

template <bool kDefective>
__global__ void writes_beyond(const float* input, float* output) {
  if (kDefective || index() < kCount) output[index()] = 1;
}

template <bool kDefective>
__global__ void reads_before(const float* input, float* output) {
  if (index() < kCount) output[index()] = kDefective || index() > 0 ? input[index() - 1] : 0;
}

template <bool kDefective>
__global__ void writes_input(const float* input, float* output) {
  if (index() < kCount) (kDefective && index() == 3 ? const_cast<float*>(input) : output)[index()] = 1;
}

// Rows of 6 values, 8 apart.
template <bool kDefective>
__global__ void reads_padding(const float* input, float* output) {
  const int row = index() / kStride, column = index() % kStride;
  if (row < kRows && column < (kDefective ? 7 : kColumns))
    output[row * kStride + column % kColumns] = input[row * kStride + column];
}

template <bool kDefective>
__global__ void vector_into_padding(const float* input, float* output) {
  if (index() >= kRows) return;
  const auto values = load_vector<4>(input + index() * kStride + (kDefective ? 4 : 0));
  output[index() * kStride] = values[0] + values[1] + values[2] + values[3];
}

// What the launch does not declare, the host's memory for instance.
template <bool kDefective>
__global__ void undeclared(const float* input, float* output, const float* other) {
  if (index() < kCount) output[index()] = (kDefective ? other : input)[0];
}

template <bool kDefective>
__global__ void blocks_write_same(const float* input, float* output) {
  if (threadIdx.x == 0) output[kDefective ? 0 : blockIdx.x] = 1;
}

// Neighbouring bytes of one word are different memory.
template <bool kDefective>
__global__ void blocks_write_bytes(const float* input, float* output) {
  if (threadIdx.x == 0) reinterpret_cast<unsigned char*>(output)[kDefective ? blockIdx.x / 2 : blockIdx.x] = 1;
}

template <bool kDefective>
__global__ void reads_other_blocks(const float* input, float* output) {
  if (threadIdx.x != 0) return;
  output[blockIdx.x] = 1;
  output[blockIdx.x + kBlocks] = output[kDefective ? (blockIdx.x + 1) % kBlocks : blockIdx.x];
}

template <bool kDefective>
__global__ void race_within_block(const float* input, float* output) {
  if (blockIdx.x != 0) return;
  output[threadIdx.x] = 1;
  if (!kDefective) block_barrier();
  output[kThreads + threadIdx.x] = output[(threadIdx.x + 1) % kThreads];
}

// All threads read what one then overwrites.
template <bool kDefective>
__global__ void overwrites_within_block(const float* input, float* output) {
  if (blockIdx.x != 0) return;
  const float value = output[0];
  if (!kDefective) block_barrier();
  output[1 + threadIdx.x] = value;
  if (threadIdx.x == 50) output[0] = value + 1;
}

// A launch on memory that the device does not have.
void run_foreign_range(bool defective) {
  OpContext context;
  SelfTestMemory<float> output{std::vector<float>(1000)};
  launch(context, "self-test", blocks_write_same<false>, {1, kThreads},
         {writes(output.data(), defective ? output.size() + 10 : output.size())}, output.data(), output.data());
}

void run_copy_beyond(bool defective) {
  OpContext context;
  SelfTestMemory<float> memory{std::vector<float>(100)};
  std::vector<float> values(101);
  runtime::copy_to_host(context, values.data(), memory.data(), (defective ? 101 : 100) * sizeof(float));
}

void run_memory_released(bool defective) {
  OpContext context;
  auto* const memory = static_cast<float*>(runtime::allocate(nullptr, 400));
  if (!defective)
    launch(context, "self-test", blocks_write_same<false>, {1, kThreads}, {writes(memory, 100)}, memory, memory);
  runtime::release(nullptr, memory);
  if (defective)
    launch(context, "self-test", blocks_write_same<false>, {1, kThreads}, {writes(memory, 100)}, memory, memory);
}

void run_too_much_shared(bool defective) {
  OpContext context;
  SelfTestMemory<float> output{std::vector<float>(10)};
  launch(context, "self-test", blocks_write_same<false>, {1, kThreads, std::size_t{99 * 1024} + (defective ? 1 : 0)},
         {writes(output.data(), output.size())}, output.data(), output.data());
}

template <void (*kDefect)(const float*, float*), void (*kCorrect)(const float*, float*)>
void run(bool defective) {
  OpContext context;
  SelfTestMemory<float> input{std::vector<float>(kCount, 1)}, output{std::vector<float>(kCount)};
  launch(context, "self-test", defective ? kDefect : kCorrect, {kBlocks, kThreads},
         {reads(input.data(), input.size()), writes(output.data(), output.size())}, input.data(), output.data());
}

template <void (*kDefect)(const float*, float*), void (*kCorrect)(const float*, float*)>
void run_rows(bool defective) {
  OpContext context;
  SelfTestMemory<float> input{std::vector<float>(kRows * kStride, 1)}, output{std::vector<float>(kRows * kStride)};
  const ConstMatrixView from{input.data(), DType::kFloat32, kRows, kColumns, kStride};
  const MatrixView to{output.data(), DType::kFloat32, kRows, kColumns, kStride};
  launch(context, "self-test", defective ? kDefect : kCorrect, {1, kThreads}, {reads(from), writes(to)}, input.data(),
         output.data());
}

void run_undeclared(bool defective) {
  OpContext context;
  SelfTestMemory<float> input{std::vector<float>(kCount, 1)}, output{std::vector<float>(kCount)};
  const float other = 1;
  launch(context, "self-test", defective ? undeclared<true> : undeclared<false>, {kBlocks, kThreads},
         {reads(input.data(), input.size()), writes(output.data(), output.size())}, input.data(), output.data(),
         &other);
}

#define SELF_TEST(name, finding) {"global." #name, finding, run<name<true>, name<false>>}

const SelfTestGroup group({
    SELF_TEST(reads_beyond, "bytes after a range of 728 bytes"),
    SELF_TEST(writes_beyond, "bytes after a range of 728 bytes"),
    SELF_TEST(reads_before, "reads 4 bytes 4 bytes before a range"),
    SELF_TEST(writes_input, "as read only"),
    {"global.reads_padding", "reads 4 bytes", run_rows<reads_padding<true>, reads_padding<false>>},
    {"global.vector_into_padding", "reads", run_rows<vector_into_padding<true>, vector_into_padding<false>>},
    {"global.undeclared", "reads 4 bytes", run_undeclared},
    SELF_TEST(blocks_write_same, "that another block of the launch writes"),
    SELF_TEST(blocks_write_bytes, "that another block of the launch writes"),
    SELF_TEST(reads_other_blocks, "that another block of the launch"),
    SELF_TEST(race_within_block, "without a barrier between"),
    SELF_TEST(overwrites_within_block, "without a barrier between"),
    {"global.foreign_range", "outside of its allocations", run_foreign_range},
    {"global.copy_beyond", "outside of its allocations", run_copy_beyond},
    {"global.memory_released", "outside of its allocations", run_memory_released},
    {"global.too_much_shared", "bytes of shared memory in a block", run_too_much_shared},
});

}  // namespace
}  // namespace siglip2::cuda
