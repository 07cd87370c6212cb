#include "ops/attention/attention_head.h"

#include <cmath>
#include <limits>

#include "cpu/simd/matrix_unit.h"
#include "cpu/simd/simd_math.h"

namespace siglip2::SIGLIP2_ISA {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// Queries × head_dim of a task: transposed queries and outputs stay in L2.
constexpr std::int64_t kTileElements = 24576;

std::int64_t most_keys_of(int head_dim) {
  return head_dim <= 128 ? 256 : 128;
}

// A worker's scratch, cut up. Groups follow each other in `query`, `output`, `most` and `total`.
struct Scratch {
  float* key;     // rows of the tile, of head_units
  float* value;   // features as rows of the tile, of their units
  float* scores;  // [keys][kTileColumns]
  float* query;   // [groups][column_rows][kTileColumns]
  float* output;  // [groups][head_rows][kTileColumns]
  float* most;    // [groups][kTileColumns]
  float* total;   // [groups][kTileColumns]
};

// Returns how many floats the parts take; with memory == nullptr only that.
std::int64_t divide_scratch(const HeadLayout& layout, std::int64_t groups, float* memory, Scratch& scratch) {
  const std::int64_t keys = most_keys_of(static_cast<int>(layout.head_dim));
  std::int64_t used = 0;
  const auto take = [&](std::int64_t count) {
    float* const part = memory == nullptr ? nullptr : memory + used;
    used += divide_up(count, 16) * 16;
    return part;
  };
  const std::int64_t row_words = layout.format.row_words;
  scratch.key = take(round_up(keys, layout.format.rows) * layout.head_units * row_words + kLanes);
  scratch.value = take(layout.head_rows * layout.units(keys) * row_words + kLanes);
  scratch.scores = take(round_up(keys, layout.format.rows) * kTileColumns);
  scratch.query = take(groups * layout.column_rows * kTileColumns);
  scratch.output = take(groups * layout.head_rows * kTileColumns);
  scratch.most = take(groups * kTileColumns);
  scratch.total = take(groups * kTileColumns);
  return used;
}

// Keys become panels of a tile's rows of keys, values panels of a tile's rows of features.
void pack_keys(const AttentionArgs& args, const HeadLayout& layout, const HeadTask& task, std::int64_t first,
               std::int64_t count, const Scratch& scratch) {
  const std::int64_t row = task.key_row + first, column = task.head * args.head_dim;
  layout.pack_rows(Operand(args.key).from(row, column), count, scratch.key);
  layout.pack_features(Operand(args.value).from(row, column), count, scratch.value);
}

// Queries, times the scale and log₂ e, become columns of the tile.
void pack_queries(const AttentionArgs& args, const HeadLayout& layout, const HeadTask& task, std::int64_t groups,
                  const Scratch& scratch) {
  const Operand query = Operand(args.query).from(task.query_row + task.first_query, task.head * args.head_dim);
  for (std::int64_t group = 0; group < groups; ++group) {
    const std::int64_t first = group * kTileColumns;
    float* const panel = scratch.query + first * layout.column_rows;
    query.from(first, 0).read([&](const auto* values) {
      pack_columns(values, query.stride(), smaller(kTileColumns, task.queries - first), args.head_dim,
                   args.scale * kLog2E, panel);
    });
    layout.join(panel, args.head_dim);
  }
}

// Running softmax of a group of queries.
struct GroupState {
  Vec most[kTileVectors];   // largest score so far
  Vec total[kTileVectors];  // Σ 2^(score − most)
  Vec decay[kTileVectors];  // what the output so far must be multiplied by
};

// Scores of keys behind their query become −∞.
void mask_future(float* scores, std::int64_t first_key, std::int64_t count, std::int64_t first_query) {
  for (std::int64_t j = 0; j < count; ++j) {
    for (int v = 0; v < kTileVectors; ++v) {
      const std::int64_t masked = first_key + j - first_query - v * kLanes;
      if (masked <= 0) continue;
      float* const target = scores + j * kTileColumns + v * kLanes;
      store(target, select_first(static_cast<int>(smaller(masked, kLanes)), broadcast(-kInfinity), load(target)));
    }
  }
}

// Scores of `count` keys become weights 2^(score − most), and `state` is brought up to date.
void soften(float* scores, std::int64_t count, GroupState& state) {
  for (int v = 0; v < kTileVectors; ++v) {
    float* const column = scores + v * kLanes;
    // Several at a time: one after the other would wait for each other.
    Vec largest[4] = {state.most[v], state.most[v], state.most[v], state.most[v]};
    std::int64_t key = 0;
    for (; key + 4 <= count; key += 4) {
      SIGLIP2_UNROLL for (int i = 0; i < 4; ++i) {
        largest[i] = max(largest[i], load(column + (key + i) * kTileColumns));
      }
    }
    for (; key < count; ++key)
      largest[0] = max(largest[0], load(column + key * kTileColumns));
    const Vec most = max(max(largest[0], largest[1]), max(largest[2], largest[3]));
    Vec sum = zero();
    for (std::int64_t j = 0; j < count; ++j) {
      const Vec weight = exp2_nonpositive(load(column + j * kTileColumns) - most);
      store(column + j * kTileColumns, weight);
      sum = sum + weight;
    }
    state.decay[v] = exp2_nonpositive(state.most[v] - most);
    state.total[v] = multiply_add(state.total[v], state.decay[v], sum);
    state.most[v] = most;
  }
}

// One group of queries against the tile of keys in scratch.
void attend(const AttentionArgs& args, const HeadLayout& layout, const HeadTask& task, std::int64_t group,
            std::int64_t first_key, std::int64_t packed_keys, const Scratch& scratch) {
  const std::int64_t first_query = task.first_query + group * kTileColumns;
  std::int64_t keys = packed_keys;
  if (args.causal) keys = smaller(keys, first_query + kTileColumns - first_key);
  if (keys <= 0) return;

  const std::int64_t height = layout.format.rows, row_words = layout.format.row_words;
  const float* const query = scratch.query + group * layout.column_rows * kTileColumns;
  float* const output = scratch.output + group * layout.head_rows * kTileColumns;
  for (std::int64_t j = 0; j < keys; j += height) {
    layout.multiply(keys - j, {scratch.key + j * layout.head_units * row_words, query, layout.head_units,
                               scratch.scores + j * kTileColumns, kTileColumns, false});
  }
  if (args.causal && first_key + keys > first_query) mask_future(scratch.scores, first_key, keys, first_query);

  GroupState state;
  for (int v = 0; v < kTileVectors; ++v) {
    state.most[v] = load(scratch.most + group * kTileColumns + v * kLanes);
    state.total[v] = load(scratch.total + group * kTileColumns + v * kLanes);
  }
  soften(scratch.scores, keys, state);
  for (int v = 0; v < kTileVectors; ++v) {
    store(scratch.most + group * kTileColumns + v * kLanes, state.most[v]);
    store(scratch.total + group * kTileColumns + v * kLanes, state.total[v]);
  }

  if (first_key > 0) {
    for (std::int64_t i = 0; i < layout.head_dim; ++i) {
      for (int v = 0; v < kTileVectors; ++v) {
        float* const target = output + i * kTileColumns + v * kLanes;
        store(target, load(target) * state.decay[v]);
      }
    }
  }
  const std::int64_t units = layout.units(keys);
  layout.join(scratch.scores, keys);
  const std::int64_t value_words = layout.units(packed_keys) * row_words;
  for (std::int64_t i = 0; i < layout.head_dim; i += height) {
    layout.multiply(layout.head_dim - i, {scratch.value + i * value_words, scratch.scores, units,
                                          output + i * kTileColumns, kTileColumns, first_key > 0});
  }
}

// Divides a group's output by its sums and writes it, and the logarithm of the sums, to the rows of its queries.
void finish_group(const AttentionArgs& args, const HeadLayout& layout, const HeadTask& task, std::int64_t group,
                  const Scratch& scratch) {
  const int head_dim = args.head_dim;
  const std::int64_t first = group * kTileColumns;
  const std::int64_t queries = smaller(kTileColumns, task.queries - first);
  const std::int64_t row = task.query_row + task.first_query + first;
  const float* const sums = scratch.output + first * layout.head_rows;
  const MatrixView output = args.output.slice_rows(row, queries).slice_columns(task.head * head_dim, head_dim);
  Vec scale[kTileVectors];
  for (int v = 0; v < kTileVectors; ++v)
    scale[v] = broadcast(1.0f) / load(scratch.total + first + v * kLanes);
  write_columns(sums, scale, queries, head_dim, output);
  if (args.log_sum_exp.data == nullptr) return;
  const double ln2 = 0.69314718055994530942;
  for (std::int64_t lane = 0; lane < queries; ++lane) {
    const double most = scratch.most[first + lane];
    const double total = scratch.total[first + lane];
    args.log_sum_exp.as<float>()[(row + lane) * args.log_sum_exp.stride + task.head] =
        static_cast<float>((most + std::log2(total)) * ln2);
  }
}

void write_empty(const AttentionArgs& args, const HeadTask& task) {
  for (std::int64_t i = 0; i < task.queries; ++i) {
    const std::int64_t row = task.query_row + task.first_query + i;
    const MatrixView output = args.output.slice_rows(row, 1).slice_columns(task.head * args.head_dim, args.head_dim);
    std::memset(output.data, 0, static_cast<std::size_t>(args.head_dim) * size_of(output.dtype));
    if (args.log_sum_exp.data != nullptr) {
      args.log_sum_exp.as<float>()[row * args.log_sum_exp.stride + task.head] = -kInfinity;
    }
  }
}

}  // namespace

std::int64_t most_queries_of(int head_dim) {
  return smaller(kTileElements / head_dim / kTileColumns * kTileColumns, 16 * kTileColumns);
}

HeadAttention::HeadAttention(int head_dim, DType product_type, std::int64_t queries)
    : layout_(HeadLayout::of(head_dim, product_type)), groups_(divide_up(queries, kTileColumns)) {
  Scratch scratch;
  scratch_floats_ = divide_scratch(layout_, groups_, nullptr, scratch);
}

void HeadAttention::run(const AttentionArgs& args, const HeadTask& task, float* memory) const {
  if (task.keys == 0) return write_empty(args, task);
  Scratch scratch;
  divide_scratch(layout_, groups_, memory, scratch);
  const std::int64_t groups = divide_up(task.queries, kTileColumns);
  pack_queries(args, layout_, task, groups, scratch);
  for (std::int64_t i = 0; i < groups * kTileColumns; ++i) {
    scratch.most[i] = -kInfinity;
    scratch.total[i] = 0.0f;
  }
  const std::int64_t most_keys = most_keys_of(args.head_dim);
  const std::int64_t visible = args.causal ? smaller(task.keys, task.first_query + task.queries) : task.keys;
  for (std::int64_t first = 0; first < visible; first += most_keys) {
    const std::int64_t count = smaller(most_keys, visible - first);
    pack_keys(args, layout_, task, first, count, scratch);
    for (std::int64_t group = 0; group < groups; ++group)
      attend(args, layout_, task, group, first, count, scratch);
  }
  for (std::int64_t group = 0; group < groups; ++group)
    finish_group(args, layout_, task, group, scratch);
}

}  // namespace siglip2::SIGLIP2_ISA
