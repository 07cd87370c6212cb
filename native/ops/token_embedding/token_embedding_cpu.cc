// Text embeddings on CPUs.
//
// Plan: each row is one row of the table, widened vector by vector, plus its position; rows in chunks for the threads.
//
// Floor: one read of the chosen rows and one write. The table is mapped from a file, so the first touch of a row may
// wait for the disk.
//
// Backward: a task takes some columns of everything, so no two tasks write the same sum. It chains the rows of each
// slot (two integers a row, little against the row), then walks the chains: a slot's sum stays in the L1 cache until it
// is complete, and its row of the table's gradient is touched once. The positions' sums are made in a second sweep.
//
// Floor: one read of grad_output for each of the two gradients, one read and write of them.
#include "ops/token_embedding/token_embedding.h"

#include "cpu/kernels.h"
#include "cpu/simd/column_sums.h"
#include "cpu/simd/simd.h"
#include "cpu/thread_pool.h"

namespace siglip2::SIGLIP2_ISA {
namespace {

constexpr std::int64_t kChunkElements = 16384;

Vec load_widened(DType dtype, const void* source) {
  if (dtype == DType::kBFloat16) return load_bfloat16(source);
  if (dtype == DType::kFloat16) return load_float16(source);
  float values[kLanes];
  std::memcpy(values, source, sizeof(values));
  return load(values);
}

void embed_row(DType dtype, const char* source, const float* position, float* output, std::int64_t width) {
  const std::int64_t bytes = dtype == DType::kFloat32 ? 4 : 2;
  std::int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    store(output + i, load_widened(dtype, source + i * bytes) + load(position + i));
  }
  if (i < width) {
    const int rest = static_cast<int>(width - i);
    char values[4 * kLanes] = {};
    std::memcpy(values, source + i * bytes, static_cast<std::size_t>(rest * bytes));
    store_first(output + i, load_widened(dtype, values) + load_first(position + i, rest), rest);
  }
}

// One row of sums in the making, in the L1 cache.
struct RowSum {
  float* sum;
  float* low;
  std::int64_t count;

  SIGLIP2_INLINE void start(const float* target) {
    std::memcpy(sum, target, static_cast<std::size_t>(count) * sizeof(float));
    std::memset(low, 0, static_cast<std::size_t>(count) * sizeof(float));
  }
  SIGLIP2_INLINE void add(const float* row) {
    std::int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      Vec total = load(sum + i), error = load(low + i);
      add_compensated(total, error, load(row + i));
      store(sum + i, total);
      store(low + i, error);
    }
    if (i < count) {
      const int rest = static_cast<int>(count - i);
      Vec total = load_first(sum + i, rest), error = load_first(low + i, rest);
      add_compensated(total, error, load_first(row + i, rest));
      store_first(sum + i, total, rest);
      store_first(low + i, error, rest);
    }
  }
  SIGLIP2_INLINE void finish(float* target) {
    for (std::int64_t i = 0; i < count; ++i)
      target[i] = sum[i] + low[i];
  }
};

// Columns [first, first + sums.count) of the table's gradient. `head` holds slot_count, `next` as many integers as
// there are rows.
void add_to_slots(const TokenEmbeddingBackwardArgs& args, std::int64_t first, RowSum sums, std::int32_t* head,
                  std::int32_t* next) {
  constexpr std::int32_t kEnd = -1;
  const std::int64_t width = args.grad_output.columns;
  for (std::int64_t slot = 0; slot < args.slot_count; ++slot)
    head[slot] = kEnd;
  for (std::int64_t row = args.grad_output.rows - 1; row >= 0; --row) {
    next[row] = head[args.slots[row]];
    head[args.slots[row]] = static_cast<std::int32_t>(row);
  }
  for (std::int64_t slot = 0; slot < args.slot_count; ++slot) {
    if (head[slot] == kEnd) continue;
    float* const target = args.grad_table + slot * width + first;
    sums.start(target);
    for (std::int32_t row = head[slot]; row != kEnd; row = next[row])
      sums.add(args.grad_output.as<float>() + row * args.grad_output.stride + first);
    sums.finish(target);
  }
}

void add_to_positions(const TokenEmbeddingBackwardArgs& args, std::int64_t first, RowSum sums) {
  for (std::int64_t position = 0; position < args.length; ++position) {
    float* const target = args.grad_positions + position * args.grad_output.columns + first;
    sums.start(target);
    for (std::int64_t row = position; row < args.grad_output.rows; row += args.length)
      sums.add(args.grad_output.as<float>() + row * args.grad_output.stride + first);
    sums.finish(target);
  }
}

}  // namespace

void token_embedding_cpu(OpContext& context, const TokenEmbeddingArgs& args) {
  const std::int64_t rows = args.output.rows;
  const std::int64_t width = args.output.columns;
  const std::int64_t row_bytes = args.table.stride * (args.table.dtype == DType::kFloat32 ? 4 : 2);
  const std::int64_t chunk = kChunkElements / width + 1;
  cpu::parallel_for((rows + chunk - 1) / chunk, context.threads, [&](std::int64_t index, int) {
    const std::int64_t last = (index + 1) * chunk < rows ? (index + 1) * chunk : rows;
    for (std::int64_t row = index * chunk; row < last; ++row) {
      embed_row(args.table.dtype, static_cast<const char*>(args.table.data) + args.ids[row] * row_bytes,
                args.positions + row % args.length * width, args.output.as<float>() + row * args.output.stride, width);
    }
  });
}

void token_embedding_backward_cpu(OpContext& context, const TokenEmbeddingBackwardArgs& args) {
  constexpr std::int64_t kMostColumns = 2048;  // two rows of sums in the L1 cache
  const std::int64_t rows = args.grad_output.rows, width = args.grad_output.columns;
  const std::int64_t columns = columns_per_task(width, context.threads, kMostColumns);
  const std::int64_t chained = args.grad_table == nullptr ? 0 : args.slot_count + rows;
  const auto bytes = static_cast<std::size_t>(2 * columns + chained) * sizeof(float);
  static_assert(sizeof(float) == sizeof(std::int32_t));
  cpu::parallel_for((width + columns - 1) / columns, context.threads, [&](std::int64_t index, int worker) {
    const std::int64_t first = index * columns;
    const std::int64_t count = first + columns < width ? columns : width - first;
    auto* const scratch = static_cast<char*>(cpu::worker_scratch(worker, bytes));
    auto* const floats = reinterpret_cast<float*>(scratch);
    auto* const head = reinterpret_cast<std::int32_t*>(scratch) + 2 * columns;
    const RowSum sums = {floats, floats + columns, count};
    if (args.grad_table != nullptr) add_to_slots(args, first, sums, head, head + args.slot_count);
    if (args.grad_positions != nullptr) add_to_positions(args, first, sums);
  });
}

}  // namespace siglip2::SIGLIP2_ISA
