// Gradients of attention on CPUs.
//
// Plan. Vector lanes are keys. A task is one head of one sequence: it walks tiles of queries, and for each of them
// blocks of keys, so that both sums of the formulas stay with one task and run in one order. For a tile of queries and
// a group of kTileColumns keys, all five products are register tiles of cpu/simd/tile.h, and nothing is reduced across
// lanes:
//
//   scores [queries][keys]           = query · keyᵀ
//   weight gradients [queries][keys] = grad_output · valueᵀ
//   grad_valueᵀ [head_dim][keys]    += grad_outputᵀ · weights
//   grad_keyᵀ [head_dim][keys]      += queryᵀ · score gradients
//   grad_queryᵀ [head_dim][queries] += keyᵀ · (score gradients)ᵀ
//
// The first four read and write their matrices of scores as they come out (L1); the last wants queries as lanes, so the
// score gradients of a block of keys are transposed (L2) and multiplied when the block is complete. Keys, values and
// their gradients are laid out for the tile once a task, queries once a tile. Scores are in units of log 2, so that
// their exponential is a power of two. Lanes without a key hold garbage that never leaves its lane. Tiles and blocks
// are cut by the lengths alone.
//
// Floor: 5·head_dim multiply-adds and one exponential a score, against 2·head_dim of the forward pass.
#include "cpu/kernels.h"
#include "cpu/simd/row_math.h"
#include "cpu/simd/simd_math.h"
#include "cpu/simd/tile.h"
#include "cpu/thread_pool.h"
#include "ops/attention/attention.h"
#include "ops/attention/attention_panels.h"

namespace siglip2::SIGLIP2_ISA {
namespace {

constexpr std::int64_t kMostQueries = 128;     // of a tile
constexpr std::int64_t kTileElements = 16384;  // queries × head_dim of a tile, so that its five copies stay in L2
constexpr std::int64_t kBlockKeys = 128;       // a multiple of kTileColumns

constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}
constexpr std::int64_t round_up(std::int64_t a, std::int64_t b) {
  return divide_up(a, b) * b;
}
constexpr std::int64_t smaller(std::int64_t a, std::int64_t b) {
  return a < b ? a : b;
}

// One head of one sequence, and the largest tile that its queries are cut into.
struct Task {
  std::int64_t query_row;  // row of the sequence's first query
  std::int64_t queries;
  std::int64_t key_row;
  std::int64_t keys;
  std::int64_t head;
  std::int64_t column;  // of the head's first feature
  std::int64_t tile;    // a multiple of kTileColumns
};

// Queries [first, first + queries) of a sequence, counted from its start.
struct QueryTile {
  std::int64_t first;
  std::int64_t queries;
};

// A worker's scratch, cut up. "Features" are panels for sums over rows, "columns" have rows as lanes.
struct Scratch {
  // Of the sequence.
  float* key_columns;    // [⌈keys/kTileColumns⌉][head_dim][kTileColumns], scaled
  float* value_columns;  // likewise, not scaled
  float* key_features;   // [⌈head_dim/kTileRows⌉][keys][kTileRows]
  float* grad_key;       // as key_columns
  float* grad_value;     // as key_columns
  // Of a tile of queries.
  float* query_rows;            // [⌈queries/kTileRows⌉][head_dim][kTileRows]
  float* query_features;        // [⌈head_dim/kTileRows⌉][queries][kTileRows]
  float* grad_output_rows;      // as query_rows
  float* grad_output_features;  // as query_features
  float* grad_query;            // [⌈queries/kTileColumns⌉][head_dim][kTileColumns]
  float* log_sums;              // [queries], in units of log 2
  float* products;              // [queries], grad_output · output
  // Of a group of keys, and of a block.
  float* weights;                 // [queries][kTileColumns]
  float* score_gradients;         // [queries][kTileColumns]
  float* score_gradient_columns;  // [⌈queries/kTileColumns⌉][kBlockKeys][kTileColumns]
};

// Returns how many floats the parts take; with memory == nullptr only that.
std::int64_t divide_scratch(const Task& task, std::int64_t head_dim, float* memory, Scratch& scratch) {
  std::int64_t used = 0;
  const auto take = [&](std::int64_t count) {
    float* const part = memory == nullptr ? nullptr : memory + used;
    used += round_up(count, 16);
    return part;
  };
  const std::int64_t features = round_up(head_dim, kTileRows);
  const std::int64_t key_lanes = round_up(task.keys, kTileColumns);
  const std::int64_t rows = round_up(task.tile, kTileRows) * head_dim + kLanes;
  scratch.key_columns = take(key_lanes * head_dim);
  scratch.value_columns = take(key_lanes * head_dim);
  scratch.key_features = take(features * task.keys);
  scratch.grad_key = take(key_lanes * head_dim);
  scratch.grad_value = take(key_lanes * head_dim);
  scratch.query_rows = take(rows);
  scratch.query_features = take(features * task.tile);
  scratch.grad_output_rows = take(rows);
  scratch.grad_output_features = take(features * task.tile);
  scratch.grad_query = take(task.tile * head_dim);
  scratch.log_sums = take(task.tile);
  scratch.products = take(task.tile);
  scratch.weights = take(task.tile * kTileColumns);
  scratch.score_gradients = take(task.tile * kTileColumns);
  scratch.score_gradient_columns = take(task.tile * kBlockKeys);
  return used;
}

// The head's part of a row.
const float* part_of(const ConstMatrixView& matrix, std::int64_t row, const Task& task) {
  return matrix.as<float>() + row * matrix.stride + task.column;
}
float* part_of(const MatrixView& matrix, std::int64_t row, const Task& task) {
  return matrix.as<float>() + row * matrix.stride + task.column;
}

void fill_zero(float* target, std::int64_t count) {
  std::memset(target, 0, static_cast<std::size_t>(count) * sizeof(float));
}

void pack_keys(const AttentionBackwardArgs& args, const Task& task, const Scratch& scratch) {
  const int head_dim = args.head_dim;
  const float* const key = part_of(args.key, task.key_row, task);
  pack_columns(key, args.key.stride, task.keys, head_dim, args.scale * kLog2E, scratch.key_columns);
  pack_columns(part_of(args.value, task.key_row, task), args.value.stride, task.keys, head_dim, 1.0f,
               scratch.value_columns);
  pack_features(key, args.key.stride, task.keys, head_dim, scratch.key_features);
  const std::int64_t size = round_up(task.keys, kTileColumns) * head_dim;
  fill_zero(scratch.grad_key, size);
  fill_zero(scratch.grad_value, size);
}

void pack_queries(const AttentionBackwardArgs& args, const Task& task, const QueryTile& tile, const Scratch& scratch) {
  const int head_dim = args.head_dim;
  const std::int64_t row = task.query_row + tile.first;
  const float* const query = part_of(args.query, row, task);
  const float* const grad_output = part_of(args.grad_output, row, task);
  pack_rows(query, args.query.stride, tile.queries, head_dim, scratch.query_rows);
  pack_features(query, args.query.stride, tile.queries, head_dim, scratch.query_features);
  pack_rows(grad_output, args.grad_output.stride, tile.queries, head_dim, scratch.grad_output_rows);
  pack_features(grad_output, args.grad_output.stride, tile.queries, head_dim, scratch.grad_output_features);
  fill_zero(scratch.grad_query, round_up(tile.queries, kTileColumns) * head_dim);
  const double log2_e = 1.44269504088896340736;
  for (std::int64_t i = 0; i < tile.queries; ++i) {
    const double log_sum = args.log_sum_exp.as<float>()[(row + i) * args.log_sum_exp.stride + task.head];
    scratch.log_sums[i] = static_cast<float>(log_sum * log2_e);
    scratch.products[i] = dot(part_of(args.output, row + i, task), grad_output + i * args.grad_output.stride, head_dim);
  }
}

// Scores of queries [start, queries) become weights, and gradients of weights become gradients of scores.
void weigh(const Scratch& scratch, std::int64_t start, std::int64_t queries) {
  for (std::int64_t i = start; i < queries; ++i) {
    const Vec log_sum = broadcast(scratch.log_sums[i]), product = broadcast(scratch.products[i]);
    float* const weights = scratch.weights + i * kTileColumns;
    float* const gradients = scratch.score_gradients + i * kTileColumns;
    SIGLIP2_UNROLL for (int v = 0; v < kTileVectors; ++v) {
      const Vec weight = exp2_nonpositive(load(weights + v * kLanes) - log_sum);
      store(weights + v * kLanes, weight);
      store(gradients + v * kLanes, weight * (load(gradients + v * kLanes) - product));
    }
  }
}

// Keys behind their query get weight and gradient 0.
void mask_future(const QueryTile& tile, std::int64_t first_key, std::int64_t start, const Scratch& scratch) {
  float* const matrices[] = {scratch.weights, scratch.score_gradients};
  for (std::int64_t i = start; i < tile.queries; ++i) {
    for (int v = 0; v < kTileVectors; ++v) {
      const std::int64_t visible = tile.first + i + 1 - first_key - v * kLanes;
      if (visible >= kLanes) continue;
      const int lanes = static_cast<int>(visible < 0 ? 0 : visible);
      for (float* const matrix : matrices) {
        float* const target = matrix + i * kTileColumns + v * kLanes;
        store(target, select_first(lanes, load(target), zero()));
      }
    }
  }
}

// A tile of queries against the group of keys that starts at `first_key`, the `position`-th of its block: adds to the
// gradients of keys and values, and leaves the transposed gradients of scores of `count` keys.
void differentiate_group(const AttentionBackwardArgs& args, const Task& task, const QueryTile& tile,
                         std::int64_t first_key, std::int64_t position, std::int64_t count, const Scratch& scratch) {
  const int head_dim = args.head_dim;
  // Queries before `start` see none of these keys. Lanes of the product with the keys begin there, too.
  const std::int64_t start =
      args.causal && first_key > tile.first ? (first_key - tile.first) / kTileColumns * kTileColumns : 0;
  const std::int64_t offset = first_key * head_dim;
  for (std::int64_t i = start / kTileRows * kTileRows; i < tile.queries; i += kTileRows) {
    const int rows = static_cast<int>(smaller(kTileRows, tile.queries - i));
    multiply_tile(rows, {scratch.query_rows + i * head_dim, scratch.key_columns + offset, head_dim,
                         scratch.weights + i * kTileColumns, kTileColumns, false});
    multiply_tile(rows, {scratch.grad_output_rows + i * head_dim, scratch.value_columns + offset, head_dim,
                         scratch.score_gradients + i * kTileColumns, kTileColumns, false});
  }
  weigh(scratch, start, tile.queries);
  if (args.causal && first_key + kTileColumns > tile.first + 1) mask_future(tile, first_key, start, scratch);

  const float* const weights = scratch.weights + start * kTileColumns;
  const float* const gradients = scratch.score_gradients + start * kTileColumns;
  for (int i = 0; i < head_dim; i += kTileRows) {
    const int rows = static_cast<int>(smaller(kTileRows, head_dim - i));
    const std::int64_t panel = i * tile.queries + start * kTileRows;
    multiply_tile(rows, {scratch.grad_output_features + panel, weights, tile.queries - start,
                         scratch.grad_value + offset + i * kTileColumns, kTileColumns, true});
    multiply_tile(rows, {scratch.query_features + panel, gradients, tile.queries - start,
                         scratch.grad_key + offset + i * kTileColumns, kTileColumns, true});
  }
  for (std::int64_t i = start; i < tile.queries; i += kTileColumns) {
    pack_columns(scratch.score_gradients + i * kTileColumns, kTileColumns, smaller(kTileColumns, tile.queries - i),
                 count, 1.0f, scratch.score_gradient_columns + i * kBlockKeys + position * kTileColumns);
  }
}

// A tile of queries against the block of `keys` keys that starts at `first_key`.
void differentiate_block(const AttentionBackwardArgs& args, const Task& task, const QueryTile& tile,
                         std::int64_t first_key, std::int64_t keys, const Scratch& scratch) {
  const int head_dim = args.head_dim;
  for (std::int64_t j = 0; j < keys; j += kTileColumns)
    differentiate_group(args, task, tile, first_key + j, j, smaller(kTileColumns, keys - j), scratch);
  for (std::int64_t i = 0; i < tile.queries; i += kTileColumns) {
    const std::int64_t visible = args.causal ? smaller(keys, tile.first + i + kTileColumns - first_key) : keys;
    if (visible <= 0) continue;
    for (int feature = 0; feature < head_dim; feature += kTileRows) {
      multiply_tile(static_cast<int>(smaller(kTileRows, head_dim - feature)),
                    {scratch.key_features + feature * task.keys + first_key * kTileRows,
                     scratch.score_gradient_columns + i * kBlockKeys, visible,
                     scratch.grad_query + i * head_dim + feature * kTileColumns, kTileColumns, true});
    }
  }
}

// Writes `rows` rows of the head from panels that have them as lanes, each value multiplied by `scale`.
void write_gradient(const Task& task, const float* panels, float scale, std::int64_t head_dim, std::int64_t first_row,
                    std::int64_t rows, const MatrixView& target) {
  Vec factors[kTileVectors];
  for (Vec& factor : factors)
    factor = broadcast(scale);
  for (std::int64_t i = 0; i < rows; i += kTileColumns) {
    write_columns(panels + i * head_dim, factors, smaller(kTileColumns, rows - i), head_dim,
                  part_of(target, first_row + i, task), target.stride);
  }
}

void write_zero(const Task& task, std::int64_t head_dim, std::int64_t first_row, std::int64_t rows,
                const MatrixView& target) {
  for (std::int64_t i = 0; i < rows; ++i)
    fill_zero(part_of(target, first_row + i, task), head_dim);
}

void run_task(const AttentionBackwardArgs& args, const Task& task, const Scratch& scratch) {
  const int head_dim = args.head_dim;
  pack_keys(args, task, scratch);
  for (std::int64_t first = 0; first < task.queries; first += task.tile) {
    const QueryTile tile = {first, smaller(task.tile, task.queries - first)};
    pack_queries(args, task, tile, scratch);
    const std::int64_t visible = args.causal ? smaller(task.keys, first + tile.queries) : task.keys;
    for (std::int64_t key = 0; key < visible; key += kBlockKeys)
      differentiate_block(args, task, tile, key, smaller(kBlockKeys, visible - key), scratch);
    write_gradient(task, scratch.grad_query, args.scale, head_dim, task.query_row + first, tile.queries,
                   args.grad_query);
  }
  write_gradient(task, scratch.grad_key, args.scale, head_dim, task.key_row, task.keys, args.grad_key);
  write_gradient(task, scratch.grad_value, 1.0f, head_dim, task.key_row, task.keys, args.grad_value);
}

// Queries of a tile: as many as stay in the caches, and about the same in every tile of a sequence.
std::int64_t tile_queries(std::int64_t queries, int head_dim) {
  std::int64_t most = kTileElements / head_dim / kTileColumns * kTileColumns;
  if (most > kMostQueries) most = kMostQueries;
  const std::int64_t tiles = divide_up(queries, most);
  return tiles == 0 ? kTileColumns : round_up(divide_up(queries, tiles), kTileColumns);
}

}  // namespace

void attention_backward_cpu(OpContext& context, const AttentionBackwardArgs& args) {
  static_assert(kBlockKeys % kTileColumns == 0 && kTileElements / kMaxHeadDim >= kTileColumns);
  cpu::parallel_for(args.sequences * args.heads, context.threads, [&](std::int64_t index, int worker) {
    const std::int64_t s = index / args.heads;
    Task task;
    task.query_row = args.query_offsets[s];
    task.queries = args.query_offsets[s + 1] - args.query_offsets[s];
    task.key_row = args.key_offsets[s];
    task.keys = args.key_offsets[s + 1] - args.key_offsets[s];
    task.head = index % args.heads;
    task.column = task.head * args.head_dim;
    task.tile = tile_queries(task.queries, args.head_dim);
    if (task.queries == 0 || task.keys == 0) {
      write_zero(task, args.head_dim, task.query_row, task.queries, args.grad_query);
      write_zero(task, args.head_dim, task.key_row, task.keys, args.grad_key);
      write_zero(task, args.head_dim, task.key_row, task.keys, args.grad_value);
      return;
    }
    Scratch scratch;
    const std::int64_t floats = divide_scratch(task, args.head_dim, nullptr, scratch);
    float* const memory =
        static_cast<float*>(cpu::worker_scratch(worker, static_cast<std::size_t>(floats) * sizeof(float)));
    divide_scratch(task, args.head_dim, memory, scratch);
    run_task(args, task, scratch);
  });
}

}  // namespace siglip2::SIGLIP2_ISA
