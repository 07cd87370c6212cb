// Sums of squares on GPUs: all arrays in two launches and one copy to the host.
//
// Floor: memory, one read; 4.5 GB and 1.4 ms for the gradients of So400m's towers on an H100. The square of a float32
// is exact in double precision; converting is one instruction of a quarter rate, a third of that time (chips without
// fast double precision take about as long as for the read).
//
// Plan: arrays are cut into chunks of kChunk elements, and a block takes a chunk, which it finds in a small table by
// bisection; a thread sums groups of four values with accesses of 16 bytes. Sums of chunks stay on the device; a second
// launch adds those of each array, a block an array. Chunks, and so the order, depend on the number of elements alone.
#include "ops/sum_of_squares/sum_of_squares.h"

#include <vector>

#include "cuda/block_reduce.h"
#include "cuda/kernels.h"
#include "cuda/prim/launch.h"
#include "cuda/prim/shared_memory.h"
#include "cuda/prim/vector.h"
#include "cuda/scratch.h"

namespace siglip2::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kValues = 4;
constexpr std::int64_t kChunk = 16384;
constexpr std::size_t kSharedBytes = kThreads / kWarpSize * sizeof(double);

struct Array {
  const float* values;
  std::int64_t count;
  std::int64_t first_chunk;
};

__device__ __forceinline__ double square(float value) {
  return static_cast<double>(value) * static_cast<double>(value);
}

__global__ void __launch_bounds__(kThreads) chunk_squares_kernel(const Array* arrays, int count, double* sums) {
  double* const shared = reinterpret_cast<double*>(shared_memory());
  const std::int64_t chunk = blockIdx.x;
  int low = 0;
  for (int high = count; high - low > 1;) {
    const int middle = (low + high) / 2;
    if (arrays[middle].first_chunk <= chunk) {
      low = middle;
    } else {
      high = middle;
    }
  }
  const Array mine = arrays[low];
  const std::int64_t begin = (chunk - mine.first_chunk) * kChunk;
  const std::int64_t end = begin + kChunk < mine.count ? begin + kChunk : mine.count;
  const int thread = static_cast<int>(threadIdx.x);
  // Neighbouring threads take neighbouring groups, so that alignment does not change the order.
  const bool vectors = reinterpret_cast<std::uintptr_t>(mine.values) % 16 == 0;
  const std::int64_t rest = end - (end - begin) % kValues;
  double parts[kValues] = {};
#pragma unroll 4
  for (std::int64_t i = begin + thread * kValues; i < rest; i += kThreads * kValues) {
    if (vectors) {
      const auto values = load_vector<kValues>(mine.values + i);
#pragma unroll
      for (int v = 0; v < kValues; ++v)
        parts[v] += square(values[v]);
    } else {
#pragma unroll
      for (int v = 0; v < kValues; ++v)
        parts[v] += square(mine.values[i + v]);
    }
  }
  if (rest + thread < end) parts[0] += square(mine.values[rest + thread]);
  double sum[1] = {(parts[0] + parts[1]) + (parts[2] + parts[3])};
  block_sum(sum, shared);
  if (thread == 0) sums[chunk] = sum[0];
}

__global__ void __launch_bounds__(kThreads)
    add_chunks_kernel(const Array* arrays, const double* sums, double* results) {
  double* const shared = reinterpret_cast<double*>(shared_memory());
  const Array mine = arrays[blockIdx.x];
  const std::int64_t chunks = (mine.count + kChunk - 1) / kChunk;
  double sum[1] = {0};
  for (std::int64_t i = threadIdx.x; i < chunks; i += kThreads)
    sum[0] += sums[mine.first_chunk + i];
  block_sum(sum, shared);
  if (threadIdx.x == 0) results[blockIdx.x] = sum[0];
}

}  // namespace

void sum_of_squares_cuda(OpContext& context, const SumOfSquaresArgs* arrays, std::int64_t count) {
  if (count == 0) return;
  Scratch scratch(context);
  std::vector<Array> table;
  std::vector<Access> accesses;
  std::int64_t chunks = 0;
  for (const SumOfSquaresArgs* args = arrays; args < arrays + count; ++args) {
    table.push_back({args->values, args->count, chunks});
    accesses.push_back(reads(args->values, args->count));
    chunks += (args->count + kChunk - 1) / kChunk;
  }
  const Array* const device_table = scratch.upload(table.data(), count);
  double* const sums = scratch.allocate<double>(chunks + count);
  double* const results = sums + chunks;
  accesses.push_back(reads(device_table, count));
  accesses.push_back(writes(sums, chunks));
  launch(context, "sum_of_squares", chunk_squares_kernel, {chunks, kThreads, kSharedBytes}, accesses, device_table,
         static_cast<int>(count), sums);
  launch(context, "sum_of_squares_add", add_chunks_kernel, {count, kThreads, kSharedBytes},
         {reads(device_table, count), reads(sums, chunks), writes(results, count)}, device_table, sums, results);
  std::vector<double> found(static_cast<std::size_t>(count));
  scratch.download(found.data(), results, count);
  if (context.planning) return;
  for (std::int64_t i = 0; i < count; ++i)
    *arrays[i].result = found[static_cast<std::size_t>(i)];
}

}  // namespace siglip2::cuda
