// Sums of squares on CPUs.
//
// Plan: chunks for the threads, each summed in sixteen double-precision sums that the compiler keeps in vectors, added
// in order at the end. The square of a float32 is exact in double precision, so every instruction set gives the same
// bits. There are at most kMostChunks chunks, whose sums are kept on the stack.
//
// Floor: memory, one read.
#include "ops/sum_of_squares/sum_of_squares.h"

#include "cpu/kernels.h"
#include "cpu/thread_pool.h"

namespace siglip2::SIGLIP2_ISA {
namespace {

constexpr int kSums = 16;
constexpr std::int64_t kLeastChunk = 32768;
constexpr std::int64_t kMostChunks = 1024;

double sum_chunk(const float* values, std::int64_t count) {
  double sums[kSums] = {};
  std::int64_t i = 0;
  for (; i + kSums <= count; i += kSums) {
    for (int j = 0; j < kSums; ++j)
      sums[j] += static_cast<double>(values[i + j]) * static_cast<double>(values[i + j]);
  }
  for (; i < count; ++i)
    sums[0] += static_cast<double>(values[i]) * static_cast<double>(values[i]);
  double sum = 0;
  for (int j = 0; j < kSums; ++j)
    sum += sums[j];
  return sum;
}

void sum_array(const OpContext& context, const SumOfSquaresArgs& args) {
  const std::int64_t even = (args.count + kMostChunks - 1) / kMostChunks;
  const std::int64_t chunk = even < kLeastChunk ? kLeastChunk : even;
  const std::int64_t chunks = (args.count + chunk - 1) / chunk;
  double sums[kMostChunks];
  cpu::parallel_for(chunks, context.threads, [&](std::int64_t index, int) {
    const std::int64_t first = index * chunk;
    sums[index] = sum_chunk(args.values + first, args.count - first < chunk ? args.count - first : chunk);
  });
  double sum = 0;
  for (std::int64_t index = 0; index < chunks; ++index)
    sum += sums[index];
  *args.result = sum;
}

}  // namespace

void sum_of_squares_cpu(OpContext& context, const SumOfSquaresArgs* arrays, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i)
    sum_array(context, arrays[i]);
}

}  // namespace siglip2::SIGLIP2_ISA
