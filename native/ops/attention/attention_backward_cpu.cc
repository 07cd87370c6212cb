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
// With products in bfloat16 they are products of cpu/simd/pair_tile.h: depths, which are head_dim, queries and keys,
// lie in pairs (cpu/simd/pair_panels.h), and weights and score gradients are rounded and joined where they were. Scores
// are made of the operands that the forward pass rounded, so that weights still sum to one.
//
// Floor: 5·head_dim multiply-adds, twice the rate in bfloat16 where the machine has it, and one exponential a score,
// against 2·head_dim of the forward pass.
#include "cpu/kernels.h"
#include "cpu/simd/matrix_unit.h"
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

// A worker's scratch, cut up. "Rows" and "features" are panels for `a` of a tile: rows with head_dim as their depth,
// and features with rows as their depth. "Columns" are for `b`, and have rows as lanes.
struct Scratch {
  // Of the sequence.
  float* key_columns;    // [⌈keys/kTileColumns⌉][column_rows][kTileColumns]
  float* value_columns;  // likewise
  float* key_features;
  float* grad_key;    // [⌈keys/kTileColumns⌉][head_rows][kTileColumns]
  float* grad_value;  // likewise
  // Of a tile of queries.
  float* scaled;  // [queries][head_dim]; only to make pairs of
  float* query_rows;
  float* query_features;
  float* grad_output_rows;
  float* grad_output_features;
  float* grad_query;  // [⌈queries/kTileColumns⌉][head_rows][kTileColumns]
  float* log_sums;    // [queries], in units of log 2
  float* products;    // [queries], grad_output · output
  // Of a group of keys, and of a block.
  float* weights;                 // [queries][kTileColumns]
  float* score_gradients;         // [queries][kTileColumns]
  float* score_gradient_columns;  // [⌈queries/kTileColumns⌉][kBlockKeys][kTileColumns]
};

// Returns how many floats the parts take; with memory == nullptr only that.
std::int64_t divide_scratch(const HeadLayout& layout, const Task& task, float* memory, Scratch& scratch) {
  std::int64_t used = 0;
  const auto take = [&](std::int64_t count) {
    float* const part = memory == nullptr ? nullptr : memory + used;
    used += round_up(count, 16);
    return part;
  };
  const std::int64_t head_dim = layout.head_dim, key_lanes = round_up(task.keys, kTileColumns);
  // Whole tiles of scores are written.
  const std::int64_t score_rows = round_up(task.tile, layout.format.rows);
  scratch.key_columns = take(key_lanes * layout.column_rows);
  scratch.value_columns = take(key_lanes * layout.column_rows);
  scratch.key_features = take(layout.row_words(head_dim, task.keys));
  scratch.grad_key = take(key_lanes * layout.head_rows);
  scratch.grad_value = take(key_lanes * layout.head_rows);
  scratch.scaled = take(layout.pairs ? task.tile * head_dim : 0);
  scratch.query_rows = take(layout.row_words(task.tile, head_dim));
  scratch.query_features = take(layout.row_words(head_dim, task.tile));
  scratch.grad_output_rows = take(layout.row_words(task.tile, head_dim));
  scratch.grad_output_features = take(layout.row_words(head_dim, task.tile));
  scratch.grad_query = take(task.tile * layout.head_rows);
  scratch.log_sums = take(task.tile);
  scratch.products = take(task.tile);
  scratch.weights = take(score_rows * kTileColumns);
  scratch.score_gradients = take(score_rows * kTileColumns);
  scratch.score_gradient_columns = take(task.tile * kBlockKeys);
  return used;
}

// The head's part of the rows from one on.
Operand part_of(const ConstMatrixView& matrix, std::int64_t row, const Task& task) {
  return Operand(matrix).from(row, task.column);
}

void fill_zero(float* target, std::int64_t count) {
  std::memset(target, 0, static_cast<std::size_t>(count) * sizeof(float));
}

// Rows become columns, times `scale`.
void pack_column_panels(const HeadLayout& layout, const Operand& source, std::int64_t rows, float scale,
                        float* panels) {
  for (std::int64_t first = 0; first < rows; first += kTileColumns) {
    float* const panel = panels + first * layout.column_rows;
    source.from(first, 0).read([&](const auto* values) {
      pack_columns(values, source.stride(), smaller(kTileColumns, rows - first), layout.head_dim, scale, panel);
    });
    layout.join(panel, layout.head_dim);
  }
}

void pack_keys(const AttentionBackwardArgs& args, const HeadLayout& layout, const Task& task, const Scratch& scratch) {
  const Operand key = part_of(args.key, task.key_row, task);
  pack_column_panels(layout, key, task.keys, layout.pairs ? 1.0f : args.scale * kLog2E, scratch.key_columns);
  pack_column_panels(layout, part_of(args.value, task.key_row, task), task.keys, 1.0f, scratch.value_columns);
  layout.pack_features(key, task.keys, scratch.key_features);
  const std::int64_t size = round_up(task.keys, kTileColumns) * layout.head_rows;
  fill_zero(scratch.grad_key, size);
  fill_zero(scratch.grad_value, size);
}

// In pairs the scale is the queries', as in the forward pass, which rounded them after that.
void pack_query_rows(const AttentionBackwardArgs& args, const HeadLayout& layout, const Operand& query,
                     std::int64_t queries, const Scratch& scratch) {
  if (!layout.pairs) return layout.pack_rows(query, queries, scratch.query_rows);
  const Vec scale = broadcast(args.scale * kLog2E);
  query.read([&](const auto* values) {
    for (std::int64_t i = 0; i < queries; ++i) {
      for_each_vector(layout.head_dim, [&](std::int64_t feature, int lanes) {
        const Vec scaled = load_up_to(values + i * query.stride() + feature, lanes) * scale;
        store_up_to(scratch.scaled + i * layout.head_dim + feature, scaled, lanes);
      });
    }
  });
  layout.pack_rows({scratch.scaled, layout.head_dim}, queries, scratch.query_rows);
}

void pack_queries(const AttentionBackwardArgs& args, const HeadLayout& layout, const Task& task, const QueryTile& tile,
                  const Scratch& scratch) {
  const std::int64_t row = task.query_row + tile.first;
  const Operand query = part_of(args.query, row, task);
  const Operand grad_output = part_of(args.grad_output, row, task);
  pack_query_rows(args, layout, query, tile.queries, scratch);
  layout.pack_features(query, tile.queries, scratch.query_features);
  layout.pack_rows(grad_output, tile.queries, scratch.grad_output_rows);
  layout.pack_features(grad_output, tile.queries, scratch.grad_output_features);
  fill_zero(scratch.grad_query, round_up(tile.queries, kTileColumns) * layout.head_rows);
  const double log2_e = 1.44269504088896340736;
  for (std::int64_t i = 0; i < tile.queries; ++i) {
    const double log_sum = args.log_sum_exp.as<float>()[(row + i) * args.log_sum_exp.stride + task.head];
    scratch.log_sums[i] = static_cast<float>(log_sum * log2_e);
    part_of(args.output, row + i, task).read([&](const auto* output) {
      grad_output.from(i, 0).read(
          [&](const auto* gradient) { scratch.products[i] = dot(output, gradient, args.head_dim); });
    });
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
void differentiate_group(const AttentionBackwardArgs& args, const HeadLayout& layout, const QueryTile& tile,
                         std::int64_t first_key, std::int64_t position, std::int64_t count, const Scratch& scratch) {
  const std::int64_t head_dim = layout.head_dim, height = layout.format.rows;
  // Queries before `start` see none of these keys. Lanes of the product with the keys begin there, too.
  const std::int64_t start =
      args.causal && first_key > tile.first ? (first_key - tile.first) / kTileColumns * kTileColumns : 0;
  const std::int64_t columns = first_key * layout.column_rows;
  for (std::int64_t i = start / height * height; i < tile.queries; i += height) {
    const std::int64_t rows = layout.row_offset(i, head_dim);
    layout.multiply(tile.queries - i, {scratch.query_rows + rows, scratch.key_columns + columns, layout.head_units,
                                       scratch.weights + i * kTileColumns, kTileColumns, false});
    layout.multiply(tile.queries - i,
                    {scratch.grad_output_rows + rows, scratch.value_columns + columns, layout.head_units,
                     scratch.score_gradients + i * kTileColumns, kTileColumns, false});
  }
  weigh(scratch, start, tile.queries);
  if (args.causal && first_key + kTileColumns > tile.first + 1) mask_future(tile, first_key, start, scratch);
  for (std::int64_t i = start; i < tile.queries; i += kTileColumns) {
    pack_columns(scratch.score_gradients + i * kTileColumns, kTileColumns, smaller(kTileColumns, tile.queries - i),
                 count, 1.0f, scratch.score_gradient_columns + i * kBlockKeys + position * kTileColumns);
  }

  const std::int64_t queries = tile.queries - start;
  float* const weights = scratch.weights + start * kTileColumns;
  float* const gradients = scratch.score_gradients + start * kTileColumns;
  layout.join(weights, queries);
  layout.join(gradients, queries);
  for (std::int64_t i = 0; i < head_dim; i += height) {
    const std::int64_t rows = layout.row_offset(i, tile.queries, layout.units(start));
    const std::int64_t target = first_key * layout.head_rows + i * kTileColumns;
    layout.multiply(head_dim - i, {scratch.grad_output_features + rows, weights, layout.units(queries),
                                   scratch.grad_value + target, kTileColumns, true});
    layout.multiply(head_dim - i, {scratch.query_features + rows, gradients, layout.units(queries),
                                   scratch.grad_key + target, kTileColumns, true});
  }
}

// A tile of queries against the block of `keys` keys that starts at `first_key`.
void differentiate_block(const AttentionBackwardArgs& args, const HeadLayout& layout, const Task& task,
                         const QueryTile& tile, std::int64_t first_key, std::int64_t keys, const Scratch& scratch) {
  for (std::int64_t j = 0; j < keys; j += kTileColumns)
    differentiate_group(args, layout, tile, first_key + j, j, smaller(kTileColumns, keys - j), scratch);
  for (std::int64_t i = 0; i < tile.queries; i += kTileColumns) {
    const std::int64_t visible = args.causal ? smaller(keys, tile.first + i + kTileColumns - first_key) : keys;
    if (visible <= 0) continue;
    float* const gradients = scratch.score_gradient_columns + i * kBlockKeys;
    layout.join(gradients, visible);
    for (std::int64_t feature = 0; feature < layout.head_dim; feature += layout.format.rows) {
      layout.multiply(layout.head_dim - feature,
                      {scratch.key_features + layout.row_offset(feature, task.keys, layout.units(first_key)), gradients,
                       layout.units(visible), scratch.grad_query + i * layout.head_rows + feature * kTileColumns,
                       kTileColumns, true});
    }
  }
}

// Writes `rows` rows of the head from panels that have them as lanes, each value multiplied by `scale`.
void write_gradient(const HeadLayout& layout, const Task& task, const float* panels, float scale,
                    std::int64_t first_row, std::int64_t rows, const MatrixView& target) {
  Vec factors[kTileVectors];
  for (Vec& factor : factors)
    factor = broadcast(scale);
  for (std::int64_t i = 0; i < rows; i += kTileColumns) {
    write_columns(panels + i * layout.head_rows, factors, smaller(kTileColumns, rows - i), layout.head_dim,
                  target.slice_rows(first_row + i, rows - i).slice_columns(task.column, layout.head_dim));
  }
}

void write_zero(const Task& task, std::int64_t head_dim, std::int64_t first_row, std::int64_t rows,
                const MatrixView& target) {
  const MatrixView part = target.slice_columns(task.column, head_dim).slice_rows(first_row, rows);
  for (std::int64_t i = 0; i < rows; ++i)
    std::memset(part.slice_rows(i, 1).data, 0, static_cast<std::size_t>(head_dim) * size_of(target.dtype));
}

void run_task(const AttentionBackwardArgs& args, const HeadLayout& layout, const Task& task, const Scratch& scratch) {
  pack_keys(args, layout, task, scratch);
  for (std::int64_t first = 0; first < task.queries; first += task.tile) {
    const QueryTile tile = {first, smaller(task.tile, task.queries - first)};
    pack_queries(args, layout, task, tile, scratch);
    const std::int64_t visible = args.causal ? smaller(task.keys, first + tile.queries) : task.keys;
    for (std::int64_t key = 0; key < visible; key += kBlockKeys)
      differentiate_block(args, layout, task, tile, key, smaller(kBlockKeys, visible - key), scratch);
    write_gradient(layout, task, scratch.grad_query, args.scale, task.query_row + first, tile.queries, args.grad_query);
  }
  write_gradient(layout, task, scratch.grad_key, args.scale, task.key_row, task.keys, args.grad_key);
  write_gradient(layout, task, scratch.grad_value, 1.0f, task.key_row, task.keys, args.grad_value);
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
  const HeadLayout layout = HeadLayout::of(args.head_dim, args.product_type);
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
    const std::int64_t floats = divide_scratch(layout, task, nullptr, scratch);
    float* const memory =
        static_cast<float*>(cpu::worker_scratch(worker, static_cast<std::size_t>(floats) * sizeof(float)));
    divide_scratch(layout, task, memory, scratch);
    const MatrixUnitScope matrix_unit(layout.pairs);
    run_task(args, layout, task, scratch);
  });
}

}  // namespace siglip2::SIGLIP2_ISA
