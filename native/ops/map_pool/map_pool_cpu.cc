// Attention pooling on CPUs.
//
// Plan. Both products with the tokens are register tiles (cpu/simd/tile.h): scores [tokens][heads] with heads as lanes,
// so that softmax runs down columns, and pooled [heads][width] with features as lanes. The projection of
// the pooled tokens reads the value weight once for a group of sequences, since it is larger than everything else. A
// task is such a group; every sequence is computed in the same way whatever its group.
//
// Floor: 2·tokens·heads·width + width² multiply-adds a sequence; two reads of its tokens (memory, then cache) and one
// of the value weight a group.
#include "ops/map_pool/map_pool.h"

#include <limits>

#include "cpu/kernels.h"
#include "cpu/simd/row_math.h"
#include "cpu/simd/simd_math.h"
#include "cpu/simd/tile.h"
#include "cpu/thread_pool.h"

namespace siglip2::SIGLIP2_ISA {
namespace {

constexpr std::int64_t kMostGroup = 8;

constexpr std::int64_t smaller(std::int64_t a, std::int64_t b) {
  return a < b ? a : b;
}

struct Scratch {
  float* keys;      // [⌈heads/kTileColumns⌉][width][kTileColumns], zero beyond the heads
  float* rows;      // [width][kTileRows], some tokens as a panel
  float* scores;    // [tokens][kTileColumns], of one panel of heads
  float* weights;   // [⌈kTileColumns/kTileRows⌉][tokens][kTileRows], the same after softmax
  float* features;  // [tokens][kTileColumns], some columns of the tokens
  float* pooled;    // [group][heads][row], row = width rounded up to kTileColumns, zero beyond the width
  std::int64_t row;
};

// Returns how many floats the parts take; with memory == nullptr only that.
std::int64_t divide_scratch(const MapPoolArgs& args, std::int64_t tokens, std::int64_t group, float* memory,
                            Scratch& scratch) {
  const std::int64_t width = args.tokens.columns;
  std::int64_t used = 0;
  const auto take = [&](std::int64_t count) {
    float* const part = memory == nullptr ? nullptr : memory + used;
    used += divide_up(count, 16) * 16;
    return part;
  };
  scratch.row = divide_up(width, kTileColumns) * kTileColumns;
  scratch.keys = take(divide_up(args.heads, kTileColumns) * width * kTileColumns);
  scratch.rows = take(width * kTileRows + kLanes);
  scratch.scores = take(tokens * kTileColumns);
  scratch.weights = take(divide_up(kTileColumns, kTileRows) * kTileRows * tokens);
  scratch.features = take(tokens * kTileColumns);
  scratch.pooled = take(group * args.heads * scratch.row);
  return used;
}

void pack_keys(const MapPoolArgs& args, float* keys) {
  const std::int64_t width = args.tokens.columns;
  const std::int64_t panels = divide_up(args.heads, kTileColumns);
  for (std::int64_t head = 0; head < panels * kTileColumns; ++head) {
    float* const target = keys + head / kTileColumns * width * kTileColumns + head % kTileColumns;
    for (std::int64_t i = 0; i < width; ++i) {
      target[i * kTileColumns] = head < args.heads ? args.probe_keys[head * width + i] : 0.0f;
    }
  }
}

// Softmax down the columns of the scores, without the division: 1/Σ goes to `inverse_totals`.
void soften(float* scores, std::int64_t tokens, float* inverse_totals) {
  for (int v = 0; v < kTileVectors; ++v) {
    float* const column = scores + v * kLanes;
    Vec most = broadcast(-std::numeric_limits<float>::infinity());
    for (std::int64_t j = 0; j < tokens; ++j)
      most = max(most, load(column + j * kTileColumns));
    Vec sum = zero();
    for (std::int64_t j = 0; j < tokens; ++j) {
      const Vec weight = exp(load(column + j * kTileColumns) - most);
      store(column + j * kTileColumns, weight);
      sum = sum + weight;
    }
    store(inverse_totals + v * kLanes, broadcast(1.0f) / sum);
  }
}

// The weights of `heads` heads from `first` on, as a panel of the register tile.
void pack_weights(const float* scores, std::int64_t tokens, std::int64_t first, std::int64_t heads, float* panel) {
  for (std::int64_t j = 0; j < tokens; ++j) {
    for (std::int64_t i = 0; i < heads; ++i)
      panel[j * kTileRows + i] = scores[j * kTileColumns + first + i];
  }
}

// Columns [first, first + kTileColumns) of the tokens, zero beyond the width.
void pack_features(const MapPoolArgs& args, const float* tokens, std::int64_t count, std::int64_t first,
                   float* features) {
  const std::int64_t stride = args.tokens.stride;
  for (int v = 0; v < kTileVectors; ++v) {
    const std::int64_t column = first + v * kLanes, left = args.tokens.columns - column;
    const int lanes = static_cast<int>(left < 0 ? 0 : smaller(left, kLanes));
    for (std::int64_t j = 0; j < count; ++j) {
      const float* const source = tokens + j * stride + column;
      store(features + j * kTileColumns + v * kLanes, lanes == kLanes ? load(source)
                                                      : lanes == 0    ? zero()
                                                                      : load_first(source, lanes));
    }
  }
}

// pooled [heads][scratch.row] of one sequence with at least one token.
void pool_sequence(const MapPoolArgs& args, const float* tokens, std::int64_t count, const Scratch& scratch,
                   float* pooled) {
  const std::int64_t width = args.tokens.columns;
  for (std::int64_t first = 0; first < args.heads; first += kTileColumns) {
    const std::int64_t heads = smaller(kTileColumns, args.heads - first);
    for (std::int64_t j = 0; j < count; j += kTileRows) {
      const std::int64_t rows = smaller(kTileRows, count - j);
      pack_rows(tokens + j * args.tokens.stride, args.tokens.stride, rows, width, scratch.rows);
      multiply_tile(static_cast<int>(rows), {scratch.rows, scratch.keys + first * width, width,
                                             scratch.scores + j * kTileColumns, kTileColumns, false});
    }
    float inverse_totals[kTileColumns];
    soften(scratch.scores, count, inverse_totals);
    for (std::int64_t head = 0; head < heads; head += kTileRows) {
      pack_weights(scratch.scores, count, head, smaller(kTileRows, heads - head), scratch.weights + head * count);
    }
    for (std::int64_t column = 0; column < width; column += kTileColumns) {
      pack_features(args, tokens, count, column, scratch.features);
      for (std::int64_t head = 0; head < heads; head += kTileRows) {
        multiply_tile(static_cast<int>(smaller(kTileRows, heads - head)),
                      {scratch.weights + head * count, scratch.features, count,
                       pooled + (first + head) * scratch.row + column, scratch.row, false});
      }
    }
    for (std::int64_t head = 0; head < heads; ++head) {
      float* const row = pooled + (first + head) * scratch.row;
      const Vec scale = broadcast(inverse_totals[head]);
      for (std::int64_t i = 0; i < scratch.row; i += kLanes)
        store(row + i, load(row + i) * scale);
    }
  }
}

// Sequences [first, first + group).
void pool_group(const MapPoolArgs& args, std::int64_t first, std::int64_t group, const Scratch& scratch) {
  const std::int64_t width = args.tokens.columns, head_dim = width / args.heads;
  const std::int64_t pooled_size = args.heads * scratch.row;
  pack_keys(args, scratch.keys);
  for (std::int64_t s = 0; s < group; ++s) {
    const std::int64_t start = args.offsets[first + s], count = args.offsets[first + s + 1] - start;
    float* const pooled = scratch.pooled + s * pooled_size;
    if (count == 0) {
      std::memset(pooled, 0, static_cast<std::size_t>(pooled_size) * sizeof(float));
    } else {
      pool_sequence(args, args.tokens.as<float>() + start * args.tokens.stride, count, scratch, pooled);
    }
  }
  for (std::int64_t out = 0; out < width; ++out) {
    const float* const weight = args.value_weight + out * width;
    for (std::int64_t s = 0; s < group; ++s) {
      const float* const pooled = scratch.pooled + s * pooled_size + out / head_dim * scratch.row;
      args.output.as<float>()[(first + s) * args.output.stride + out] =
          dot(weight, pooled, width) + args.value_bias[out];
    }
  }
}

}  // namespace

void map_pool_cpu(OpContext& context, const MapPoolArgs& args) {
  std::int64_t group = divide_up(args.sequences, context.threads);
  if (group > kMostGroup) group = kMostGroup;
  std::int64_t tokens = 0;
  for (std::int64_t s = 0; s < args.sequences; ++s) {
    const std::int64_t count = args.offsets[s + 1] - args.offsets[s];
    if (count > tokens) tokens = count;
  }
  cpu::parallel_for(divide_up(args.sequences, group), context.threads, [&](std::int64_t index, int worker) {
    Scratch scratch;
    const std::int64_t floats = divide_scratch(args, tokens, group, nullptr, scratch);
    float* const memory =
        static_cast<float*>(cpu::worker_scratch(worker, static_cast<std::size_t>(floats) * sizeof(float)));
    divide_scratch(args, tokens, group, memory, scratch);
    pool_group(args, index * group, smaller(group, args.sequences - index * group), scratch);
  });
}

}  // namespace siglip2::SIGLIP2_ISA
