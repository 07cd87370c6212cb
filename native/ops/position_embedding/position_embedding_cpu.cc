// Resized position embeddings on CPUs.
//
// Plan: a task is one row of one image's grid. It blends the table's rows that the row draws on into one row of entries
// in scratch (table_columns × width floats, L2), and then, token by token, the entries that the column draws on, adding
// them to the token. Filter weights are recomputed by every task: a few divisions against thousands of multiply-adds.
//
// Floor: one read and one write of the tokens; per token and feature, two multiply-adds when the table is enlarged.
//
// Backward: a task takes some columns (features) of everything, so no two tasks write the same sum, and goes through
// the forward's two steps in reverse: a grid's row is gathered into one row of entries in scratch, and that added to
// the rows of the table's gradient that it was blended from. Those sums run over whole batches and keep their rounding
// errors, in scratch. Horizontal weights are computed once for every image and task.
//
// Floor: one read of grad_tokens; per token and feature, two multiply-adds when the table is enlarged.
#include "ops/position_embedding/position_embedding.h"

#include "cpu/kernels.h"
#include "cpu/simd/column_sums.h"
#include "cpu/simd/simd.h"
#include "cpu/thread_pool.h"
#include "ops/position_embedding/position_taps.h"

namespace siglip2::SIGLIP2_ISA {
namespace {

// Σ over taps of weight · entries[tap · stride + i], for i in [0, count); stored, or added to what is there.
template <bool kAdd>
void blend(const float* entries, std::int64_t stride, const PositionTaps& taps, float* output, std::int64_t count) {
  for (std::int64_t i = 0; i < count; i += kLanes) {
    const int lanes = static_cast<int>(count - i < kLanes ? count - i : kLanes);
    const auto read = [lanes](const float* source) {
      return lanes == kLanes ? load(source) : load_first(source, lanes);
    };
    const float* const source = entries + taps.first * stride + i;
    Vec sum = read(source) * broadcast(taps.weights[0]);
    for (std::int64_t tap = 1; tap < taps.count; ++tap) {
      sum = multiply_add(read(source + tap * stride), broadcast(taps.weights[tap]), sum);
    }
    if (kAdd) sum = read(output + i) + sum;
    if (lanes == kLanes) {
      store(output + i, sum);
    } else {
      store_first(output + i, sum, lanes);
    }
  }
}

// Tokens between the one that is read and the one that is asked for: their short pieces lie far apart.
constexpr std::int64_t kTokensAhead = 6;

// entries[tap · stride + i] += weight · token[i] for every tap, i in [0, count): the transpose of `blend`. `later` is
// read soon.
void spread(const float* token, const float* later, const PositionTaps& taps, float* entries, std::int64_t stride,
            std::int64_t count) {
  for (std::int64_t i = 0; i < count; i += kLanes) {
    const int lanes = static_cast<int>(count - i < kLanes ? count - i : kLanes);
    prefetch(later + i);
    const Vec gradient = lanes == kLanes ? load(token + i) : load_first(token + i, lanes);
    float* entry = entries + taps.first * stride + i;  // entries have room for whole vectors
    for (std::int64_t tap = 0; tap < taps.count; ++tap, entry += stride)
      store(entry, multiply_add(gradient, broadcast(taps.weights[tap]), load(entry)));
  }
}

// target + low += weight · entries, for i in [0, count).
void add_scaled(const float* entries, float weight, float* target, float* low, std::int64_t count) {
  for (std::int64_t i = 0; i < count; i += kLanes) {
    const int lanes = static_cast<int>(count - i < kLanes ? count - i : kLanes);
    Vec sum = lanes == kLanes ? load(target + i) : load_first(target + i, lanes);
    Vec error = load(low + i);
    add_compensated(sum, error, load(entries + i) * broadcast(weight));
    store(low + i, error);
    if (lanes == kLanes) {
      store(target + i, sum);
    } else {
      store_first(target + i, sum, lanes);
    }
  }
}

// What one task of the backward pass works in. `stride` is the task's number of columns, in whole vectors.
struct BackwardScratch {
  PositionTaps* horizontal;   // for every column of the widest grid
  float* horizontal_weights;  // for all of them
  float* vertical_weights;
  float* entries;  // [table_columns][stride]
  float* low;      // [table_rows][table_columns][stride]
  std::int64_t stride;
};

// Features [first, first + count) of the whole gradient.
void add_to_table(const PositionEmbeddingBackwardArgs& args, std::int64_t first, std::int64_t count,
                  const BackwardScratch& scratch) {
  const std::int64_t width = args.grad_tokens.columns, stride = scratch.stride;
  const std::int64_t row_floats = args.table_columns * stride;
  const auto clear = [](float* values, std::int64_t floats) {
    std::memset(values, 0, static_cast<std::size_t>(floats) * sizeof(float));
  };
  clear(scratch.low, args.table_rows * row_floats);
  const float* token = args.grad_tokens.as<float>() + first;
  std::int64_t left = args.grad_tokens.rows;
  for (std::int64_t image = 0; image < args.images; ++image) {
    const std::int64_t rows = args.spatial_shapes[2 * image], columns = args.spatial_shapes[2 * image + 1];
    float* weights = scratch.horizontal_weights;
    for (std::int64_t column = 0; column < columns; ++column) {
      scratch.horizontal[column] = position_taps(args.table_columns, columns, column, weights);
      weights += scratch.horizontal[column].count;
    }
    for (std::int64_t row = 0; row < rows; ++row) {
      clear(scratch.entries, row_floats);
      for (std::int64_t column = 0; column < columns; ++column, --left, token += args.grad_tokens.stride) {
        const float* const later = left > kTokensAhead ? token + kTokensAhead * args.grad_tokens.stride : token;
        spread(token, later, scratch.horizontal[column], scratch.entries, stride, count);
      }
      const PositionTaps vertical = position_taps(args.table_rows, rows, row, scratch.vertical_weights);
      for (std::int64_t tap = 0; tap < vertical.count; ++tap) {
        const std::int64_t entry = (vertical.first + tap) * args.table_columns;
        for (std::int64_t x = 0; x < args.table_columns; ++x)
          add_scaled(scratch.entries + x * stride, vertical.weights[tap], args.grad_table + (entry + x) * width + first,
                     scratch.low + (entry + x) * stride, count);
      }
    }
  }
  for (std::int64_t entry = 0; entry < args.table_rows * args.table_columns; ++entry) {
    for (std::int64_t i = 0; i < count; ++i)
      args.grad_table[entry * width + first + i] += scratch.low[entry * stride + i];
  }
}

}  // namespace

void position_embedding_cpu(OpContext& context, const PositionEmbeddingArgs& args) {
  const std::int64_t width = args.tokens.columns;
  const std::int64_t longest = args.table_rows > args.table_columns ? args.table_rows : args.table_columns;
  const std::size_t scratch_bytes = static_cast<std::size_t>(longest + args.table_columns * width) * sizeof(float);
  std::int64_t grid_rows = 0;
  for (std::int64_t image = 0; image < args.images; ++image)
    grid_rows += args.spatial_shapes[2 * image];

  cpu::parallel_for(grid_rows, context.threads, [&](std::int64_t index, int worker) {
    std::int64_t image = 0, first_token = 0;
    while (index >= args.spatial_shapes[2 * image]) {
      index -= args.spatial_shapes[2 * image];
      first_token += static_cast<std::int64_t>(args.spatial_shapes[2 * image]) * args.spatial_shapes[2 * image + 1];
      ++image;
    }
    const std::int64_t rows = args.spatial_shapes[2 * image];
    const std::int64_t columns = args.spatial_shapes[2 * image + 1];
    float* const entries = static_cast<float*>(cpu::worker_scratch(worker, scratch_bytes));
    float* const weights = entries + args.table_columns * width;

    const PositionTaps vertical = position_taps(args.table_rows, rows, index, weights);
    blend<false>(args.table, args.table_columns * width, vertical, entries, args.table_columns * width);
    float* token = args.tokens.as<float>() + (first_token + index * columns) * args.tokens.stride;
    for (std::int64_t column = 0; column < columns; ++column, token += args.tokens.stride) {
      const PositionTaps horizontal = position_taps(args.table_columns, columns, column, weights);
      blend<true>(entries, width, horizontal, token, width);
    }
  });
}

void position_embedding_backward_cpu(OpContext& context, const PositionEmbeddingBackwardArgs& args) {
  constexpr std::int64_t kMostColumns = 1024;  // a row of entries in the L1 or L2 cache
  const std::int64_t width = args.grad_tokens.columns;
  const std::int64_t task_columns = columns_per_task(width, context.threads, kMostColumns);
  std::int64_t widest = 0, most_weights = 0;
  for (std::int64_t image = 0; image < args.images; ++image) {
    const std::int64_t columns = args.spatial_shapes[2 * image + 1];
    const std::int64_t weights = columns * most_position_taps(args.table_columns, columns);
    widest = columns > widest ? columns : widest;
    most_weights = weights > most_weights ? weights : most_weights;
  }
  const std::int64_t floats =
      (args.table_rows + 1) * args.table_columns * task_columns + args.table_rows + most_weights;
  const std::size_t bytes =
      static_cast<std::size_t>(widest) * sizeof(PositionTaps) + static_cast<std::size_t>(floats) * sizeof(float);
  cpu::parallel_for((width + task_columns - 1) / task_columns, context.threads, [&](std::int64_t index, int worker) {
    const std::int64_t first = index * task_columns;
    BackwardScratch scratch;
    scratch.stride = task_columns;
    scratch.horizontal = static_cast<PositionTaps*>(cpu::worker_scratch(worker, bytes));
    scratch.entries = reinterpret_cast<float*>(scratch.horizontal + widest);
    scratch.low = scratch.entries + args.table_columns * task_columns;
    scratch.vertical_weights = scratch.low + args.table_rows * args.table_columns * task_columns;
    scratch.horizontal_weights = scratch.vertical_weights + args.table_rows;
    add_to_table(args, first, first + task_columns < width ? task_columns : width - first, scratch);
  });
}

}  // namespace siglip2::SIGLIP2_ISA
