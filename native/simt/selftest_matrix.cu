// Self-tests: the layouts of matrix instructions, against the tables of the PTX ISA ("Matrix Fragments for
// mma.m16n8k8/m16n8k16 with floating point type", "ldmatrix"), written out here on their own.
#include "cuda/prim/barrier.h"
#include "cuda/prim/bfloat16.h"
#include "cuda/prim/launch.h"
#include "cuda/prim/matrix.h"
#include "cuda/prim/shared_memory.h"
#include "cuda/prim/warp.h"
#include "simt/selftest.h"

namespace siglip2::cuda {
namespace {

using simt::self_test_expect;
using simt::SelfTestGroup;
using simt::SelfTestMemory;

struct Position {
  int row, column;
};

// Element i of a lane's fragment; groupID = lane >> 2, threadID_in_group = lane % 4.
Position element_of_a(int depth, int lane, int i) {
  const int group = lane >> 2, thread = lane % 4;
  if (depth == 8) return {i < 2 ? group : group + 8, thread * 2 + (i & 1)};
  const bool upper = (0 <= i && i < 2) || (4 <= i && i < 6);
  return {upper ? group : group + 8, i < 4 ? thread * 2 + (i & 1) : thread * 2 + (i & 1) + 8};
}
Position element_of_b(int depth, int lane, int i) {
  const int group = lane >> 2, thread = lane % 4;
  if (depth == 8) return {thread * 2 + i, group};
  return {i < 2 ? thread * 2 + (i & 1) : thread * 2 + (i & 1) + 8, group};
}
Position element_of_d(int lane, int i) {
  const int group = lane >> 2, thread = lane % 4;
  return {i < 2 ? group : group + 8, thread * 2 + (i & 1)};
}

template <int kDepth>
__global__ void product(const std::uint32_t* a, const std::uint32_t* b, float* d) {
  constexpr int kA = kDepth / 4, kB = kDepth / 8;
  std::uint32_t left[kA], right[kB];
  for (int i = 0; i < kA; ++i)
    left[i] = a[lane_index() * kA + i];
  for (int i = 0; i < kB; ++i)
    right[i] = b[lane_index() * kB + i];
  float accumulator[4] = {1, 2, 3, 4};
  if constexpr (kDepth == 16) {
    multiply_16x8x16(accumulator, left, right);
  } else {
    multiply_16x8x8(accumulator, left, right);
  }
  for (int i = 0; i < 4; ++i)
    d[lane_index() * 4 + i] = accumulator[i];
}

std::uint16_t bits_of(int value) {
  return from_float<bfloat16>(static_cast<float>(value)).bits;
}

template <int kDepth>
void check_product(bool) {
  // Small whole numbers: products and sums are exact.
  const auto a_at = [](int row, int column) { return (row * 7 + column * 3) % 11 - 5; };
  const auto b_at = [](int row, int column) { return (row * 5 + column * 2) % 13 - 6; };
  constexpr std::size_t kA = kDepth / 4, kB = kDepth / 8;
  std::vector<std::uint16_t> left(32 * kA * 2), right(32 * kB * 2);
  for (int lane = 0; lane < 32; ++lane) {
    for (std::size_t i = 0; i < 2 * kA; ++i) {
      const Position at = element_of_a(kDepth, lane, static_cast<int>(i));
      left[static_cast<std::size_t>(lane) * 2 * kA + i] = bits_of(a_at(at.row, at.column));
    }
    for (std::size_t i = 0; i < 2 * kB; ++i) {
      const Position at = element_of_b(kDepth, lane, static_cast<int>(i));
      right[static_cast<std::size_t>(lane) * 2 * kB + i] = bits_of(b_at(at.row, at.column));
    }
  }
  OpContext context;
  SelfTestMemory<std::uint16_t> a(left), b(right);
  SelfTestMemory<float> d{std::vector<float>(128)};
  const auto* const a_words = reinterpret_cast<const std::uint32_t*>(a.data());
  const auto* const b_words = reinterpret_cast<const std::uint32_t*>(b.data());
  launch(context, "self-test", product<kDepth>, {1, 32},
         {reads(a_words, a.size() / 2), reads(b_words, b.size() / 2), writes(d.data(), d.size())}, a_words, b_words,
         d.data());
  const std::vector<float> found = d.read();
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const Position at = element_of_d(lane, i);
      int expected = i + 1;
      for (int k = 0; k < kDepth; ++k)
        expected += a_at(at.row, k) * b_at(k, at.column);
      self_test_expect(
          found[static_cast<std::size_t>(lane * 4 + i)] == static_cast<float>(expected),
          "element " + std::to_string(i) + " of lane " + std::to_string(lane) + " of the product is wrong");
    }
  }
}

// Row r of matrix m lies at 16 × rows(8m + r), an order that is not the natural one.
constexpr int place_of_row(int index) {
  return index * 5 % 32;
}

template <int kMatrices, bool kTransposed>
__global__ void load(const std::uint16_t* elements, std::uint32_t* output) {
  auto* const shared = reinterpret_cast<std::uint16_t*>(shared_memory());
  for (int i = 0; i < 8; ++i)
    shared[place_of_row(lane_index()) * 8 + i] = elements[lane_index() * 8 + i];
  warp_barrier();
  std::uint32_t registers[kMatrices];
  // Lanes whose address is not asked for give one that is none.
  const bool asked = lane_index() < 8 * kMatrices;
  load_matrices<kMatrices, kTransposed>(registers, asked ? shared + place_of_row(lane_index()) * 8 : nullptr);
  for (int i = 0; i < kMatrices; ++i)
    output[lane_index() * kMatrices + i] = registers[i];
}

// ldmatrix: "thread 0 holds elements 0 and 1 of row 0, thread 1 elements 2 and 3 …, thread 4 elements 0 and 1 of row
// 1".
template <int kMatrices, bool kTransposed>
void check_load(bool) {
  std::vector<std::uint16_t> values(256);
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<std::uint16_t>(i * 257 + 3);
  OpContext context;
  SelfTestMemory<std::uint16_t> elements(values);
  SelfTestMemory<std::uint32_t> output{std::vector<std::uint32_t>(32 * kMatrices)};
  launch(context, "self-test", load<kMatrices, kTransposed>, {1, 32, 512},
         {reads(elements.data(), elements.size()), writes(output.data(), output.size())}, elements.data(),
         output.data());
  const std::vector<std::uint32_t> found = output.read();
  for (int matrix = 0; matrix < kMatrices; ++matrix) {
    int lane = 0;
    for (int row = 0; row < 8; ++row) {
      for (int column = 0; column < 8; column += 2, ++lane) {
        const auto at = [&](int r, int c) {
          return std::uint32_t{values[static_cast<std::size_t>(64 * matrix + (kTransposed ? 8 * c + r : 8 * r + c))]};
        };
        self_test_expect(
            found[static_cast<std::size_t>(lane * kMatrices + matrix)] == (at(row, column) | at(row, column + 1) << 16),
            "register " + std::to_string(matrix) + " of lane " + std::to_string(lane) + " is wrong");
      }
    }
  }
}

// The lane that gives a row's address is the one that reads it.
template <bool kDefective>
__global__ void load_without_barrier(std::uint32_t* output) {
  auto* const shared = reinterpret_cast<std::uint16_t*>(shared_memory());
  for (int i = 0; i < 8; ++i)
    shared[(threadIdx.x ^ 32) * 8 + i] = 1;
  if (!kDefective) block_barrier();
  std::uint32_t registers[4];
  load_matrices<4>(registers, shared + threadIdx.x * 8);
  output[threadIdx.x] = registers[0];
}

template <bool kDefective>
__global__ void load_misaligned(std::uint32_t* output) {
  auto* const shared = reinterpret_cast<std::uint16_t*>(shared_memory());
  for (int i = 0; i < 8; ++i)
    shared[threadIdx.x * 8 + i] = 1;
  block_barrier();
  std::uint32_t registers[1];
  load_matrices<1>(registers, shared + lane_index() * 8 + (kDefective && threadIdx.x == 2 ? 4 : 0));
  output[threadIdx.x] = registers[0];
}

template <bool kDefective>
__global__ void multiply_by_some(std::uint32_t* output) {
  float accumulator[4] = {};
  const std::uint32_t a[4] = {}, b[2] = {};
  if (!kDefective || lane_index() != 7) multiply_16x8x16(accumulator, a, b);
  output[threadIdx.x] = static_cast<std::uint32_t>(accumulator[0]);
}

template <void (*kDefect)(std::uint32_t*), void (*kCorrect)(std::uint32_t*)>
void run(bool defective) {
  OpContext context;
  SelfTestMemory<std::uint32_t> output{std::vector<std::uint32_t>(64)};
  launch(context, "self-test", defective ? kDefect : kCorrect, {1, 64, 1024}, {writes(output.data(), output.size())},
         output.data());
}

#define SELF_TEST(name, finding) {"matrix." #name, finding, run<name<true>, name<false>>}

const SelfTestGroup group({
    {"matrix.multiply_16x8x16", nullptr, check_product<16>},
    {"matrix.multiply_16x8x8", nullptr, check_product<8>},
    {"matrix.load_1", nullptr, check_load<1, false>},
    {"matrix.load_1_transposed", nullptr, check_load<1, true>},
    {"matrix.load_2", nullptr, check_load<2, false>},
    {"matrix.load_2_transposed", nullptr, check_load<2, true>},
    {"matrix.load_4", nullptr, check_load<4, false>},
    {"matrix.load_4_transposed", nullptr, check_load<4, true>},
    SELF_TEST(load_without_barrier, "shared memory"),
    SELF_TEST(load_misaligned, "not aligned to 16 bytes"),
    SELF_TEST(multiply_by_some, "lanes of "),
});

}  // namespace
}  // namespace siglip2::cuda
