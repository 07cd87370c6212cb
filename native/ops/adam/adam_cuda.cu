// Adam on GPUs: all parameters of a model in one launch.
//
// Floor: memory. Four reads and three writes, 28 bytes a parameter; 36 with an average, 24 without a gradient. The two
// towers of So400m, 1.1e9 parameters, take 32 GB: 10 ms at the 3.3 TB/s that an H100 gives.
//
// Plan: parameters are cut into chunks of kChunk elements, or as many whole rows where gradients are sparse, and a
// block takes a chunk: it finds its parameter in a small table by bisection, reads each element once, changes it in
// registers and writes it once. Accesses are 16 bytes; of each of up to five arrays two are under way in a thread. Rows
// that are untouched cost the read of their gradient's row number. There is no sum, so no order to keep.
//
// Arithmetic is float32 from scalars that the host derives in double precision (adam_scalars.h). The parameter moves by
// one rounded subtraction of decay and update together: 1 − decay, which may differ from 1 by less than float32 can
// tell, is never formed.
#include "ops/adam/adam.h"

#include <vector>

#include "cuda/kernels.h"
#include "cuda/prim/bounds.h"
#include "cuda/prim/launch.h"
#include "cuda/prim/vector.h"
#include "cuda/scratch.h"
#include "ops/adam/adam_scalars.h"

namespace siglip2::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kValues = 4;
constexpr std::int64_t kChunk = 8192;  // elements of a block

__device__ __forceinline__ float next(const AdamRunningMean& mean, float old, float fresh) {
  return fmaf(mean.factor, old, fmaf(mean.low, old, mean.rest * fresh));
}

// What a stretch of elements has in memory; `gradient` and `average` may be null.
struct Span {
  float* parameter;
  const float* gradient;
  float* first;
  float* second;
  float* average;
};

struct Parameter {
  Span span;
  const std::int32_t* gradient_rows;  // device memory; null: dense, one row
  std::int64_t rows;
  std::int64_t width;
  std::int64_t rows_per_chunk;  // when sparse
  std::int64_t first_chunk;
  AdamScalars step;
  bool vectors;  // every row starts at a multiple of 16 bytes
};

// kCount neighbouring elements from i on.
template <int kCount>
__device__ __forceinline__ void update(const AdamScalars& step, const Span& span, std::int64_t i) {
  Vector<float, kCount> gradient = {}, average = {};
  if (span.gradient != nullptr) gradient = load_vector<kCount>(span.gradient + i);
  if (span.average != nullptr) average = load_vector<kCount>(span.average + i);
  auto first = load_vector<kCount>(span.first + i);
  auto second = load_vector<kCount>(span.second + i);
  auto parameter = load_vector<kCount>(span.parameter + i);
#pragma unroll
  for (int v = 0; v < kCount; ++v) {
    const float scaled = gradient[v] * step.gradient_scale;
    first[v] = next(step.first, first[v], scaled);
    second[v] = next(step.second, second[v], scaled * scaled);
    if (fabsf(first[v]) < step.least) first[v] = 0;
    if (second[v] < step.least) second[v] = 0;
    const float root = fmaf(sqrtf(second[v]), step.root_scale, step.epsilon);
    parameter[v] -= fmaf(step.decay, parameter[v], step.step_size * first[v] / root);
    average[v] = next(step.average, average[v], parameter[v]);
  }
  store_vector(span.first + i, first);
  store_vector(span.second + i, second);
  store_vector(span.parameter + i, parameter);
  if (span.average != nullptr) store_vector(span.average + i, average);
}

// Elements [begin, end) of a span; with `vectors` its start and `begin` are aligned.
__device__ __forceinline__ void update_range(const AdamScalars& step, const Span& span, bool vectors,
                                             std::int64_t begin, std::int64_t end) {
  const int thread = static_cast<int>(threadIdx.x);
  std::int64_t rest = begin;
  if (vectors) {
    rest = end - (end - begin) % kValues;
#pragma unroll 2
    for (std::int64_t i = begin + thread * kValues; i < rest; i += kThreads * kValues)
      update<kValues>(step, span, i);
  }
  for (std::int64_t i = rest + thread; i < end; i += kThreads)
    update<1>(step, span, i);
}

__global__ void __launch_bounds__(kThreads) adam_kernel(const Parameter* parameters, int count) {
  const std::int64_t chunk = blockIdx.x;
  int low = 0;
  for (int high = count; high - low > 1;) {
    const int middle = (low + high) / 2;
    if (parameters[middle].first_chunk <= chunk) {
      low = middle;
    } else {
      high = middle;
    }
  }
  const Parameter& mine = parameters[low];
  const AdamScalars step = mine.step;
  const Span span = mine.span;
  const bool vectors = mine.vectors;
  const std::int64_t index = chunk - mine.first_chunk, width = mine.width;
  if (mine.gradient_rows == nullptr) {
    const std::int64_t begin = index * kChunk;
    update_range(step, span, vectors, begin, begin + kChunk < width ? begin + kChunk : width);
    return;
  }
  const std::int64_t first_row = index * mine.rows_per_chunk;
  const std::int64_t end_row =
      first_row + mine.rows_per_chunk < mine.rows ? first_row + mine.rows_per_chunk : mine.rows;
  for (std::int64_t row = first_row; row < end_row; ++row) {
    const std::int64_t slot = mine.gradient_rows[row], at = row * width;
    if (slot == AdamArgs::kUntouched) continue;
    const float* const gradient = slot == AdamArgs::kZeroGradient ? nullptr : span.gradient + slot * width;
    float* const average = span.average == nullptr ? nullptr : span.average + at;
    update_range(step, {span.parameter + at, gradient, span.first + at, span.second + at, average}, vectors, 0, width);
  }
}

}  // namespace

void adam_cuda(OpContext& context, const AdamArgs* parameters, std::int64_t count) {
  Scratch scratch(context);
  std::vector<Parameter> table;
  std::vector<Access> accesses;
  std::int64_t chunks = 0;
  for (const AdamArgs* args = parameters; args < parameters + count; ++args) {
    const std::int64_t elements = args->rows * args->width;
    if (elements == 0) continue;
    const bool sparse = args->gradient_rows != nullptr;
    Parameter each = {};
    each.span = {args->parameter, args->gradient, args->first_moment, args->second_moment, args->average};
    each.gradient_rows = scratch.upload(args->gradient_rows, args->rows);
    each.rows = sparse ? args->rows : 1;
    each.width = sparse ? args->width : elements;
    each.rows_per_chunk = args->width < kChunk ? kChunk / args->width : 1;
    each.first_chunk = chunks;
    each.step = AdamScalars::of(*args);
    const std::int64_t stride = sparse ? args->width : 0;
    each.vectors = true;
    for (const float* const array : {args->parameter, args->first_moment, args->second_moment, args->average})
      each.vectors = each.vectors && rows_aligned(array, stride, sizeof(float));
    each.vectors = each.vectors && rows_aligned(args->gradient, stride, sizeof(float));
    chunks += sparse ? (each.rows + each.rows_per_chunk - 1) / each.rows_per_chunk : (elements + kChunk - 1) / kChunk;
    for (float* const array : {args->parameter, args->first_moment, args->second_moment, args->average})
      accesses.push_back(writes(array, elements));
    accesses.push_back(reads(args->gradient, sparse ? args->slots * args->width : elements));
    accesses.push_back(reads(each.gradient_rows, args->rows));
    table.push_back(each);
  }
  const auto entries = static_cast<std::int64_t>(table.size());
  const Parameter* const device_table = scratch.upload(table.data(), entries);
  accesses.push_back(reads(device_table, entries));
  launch(context, "adam", adam_kernel, {chunks, kThreads}, accesses, device_table, static_cast<int>(entries));
}

}  // namespace siglip2::cuda
