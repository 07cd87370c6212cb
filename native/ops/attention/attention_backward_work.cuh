// What the kernels of attention's backward pass share: their operands, and the list of tiles that their blocks work on.
//
// Two kernels, one shape. Each block keeps some rows of one side resident and streams the other side's rows past them:
//
//   kernel    resident rows             streamed rows              finishes
//   keys      key (1), value (2)        query (1), grad_output (2) grad_key (1), grad_value (2)
//   queries   query (1), grad_output (2) key (1), value (2)        grad_query (1)
//
// With R1, R2 the resident and T1, T2 the streamed matrices, both compute S = R1 T1ᵀ, dP = R2 T2ᵀ, the weights
// P = exp(scale · S − log_sum_exp), dS = P ∘ (dP − D), and then gradient 1 += scale · dS · T1; the keys kernel also
// gradient 2 += P · T2. Only where the statistics of the queries lie differs: along rows of S in the queries kernel,
// along its columns in the keys kernel. Every element of a gradient is the sum of one thread in the order of the streamed
// rows, so results depend on nothing but the inputs.
#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "cuda/language.h"
#include "ops/attention/attention.h"

namespace siglip2::cuda::attention_backward {

enum class Resident { kKeys, kQueries };

// Resident rows of one block, and the rows to stream.
struct WorkItem {
  std::int32_t resident_row;       // the first, in the packed matrix
  std::int32_t resident_position;  // the first, in its sequence
  std::int32_t resident_rows;      // at most the tile's
  std::int32_t streamed_row;       // first of the sequence, in the packed matrix
  std::int32_t streamed_rows;      // of the sequence
};

// Per query and head, in the order [head][query]: a multiple of log_sum_exp (+∞ for a query without keys, whose weights
// so become 0), and D = grad_output · output.
struct Statistic {
  float log_sum_exp;
  float product;
};

template <typename T>
struct Rows {
  T* data;
  std::int64_t stride;
};

template <typename T>
struct Operands {
  Rows<const T> resident1, resident2;
  Rows<const T> streamed1, streamed2;
  Rows<T> gradient1, gradient2;
  const Statistic* statistics;
  std::int64_t queries;
  const WorkItem* items;
  int heads;
  int head_dim;
  bool causal;
  float scale;
};

// Streamed rows that any of the item's resident rows sees; the first is rounded down to a whole tile.
struct Range {
  int first;
  int end;
};
template <Resident kResident>
__device__ __forceinline__ Range visible_rows(const WorkItem& item, bool causal, int tile) {
  if (!causal) return {0, item.streamed_rows};
  if (kResident == Resident::kKeys) return {item.resident_position / tile * tile, item.streamed_rows};
  const int last = item.resident_position + item.resident_rows;
  return {0, last < item.streamed_rows ? last : item.streamed_rows};
}

// Whether a query attends to a key, given the positions of the resident and of the streamed row.
template <Resident kResident>
__device__ __forceinline__ bool attends(int resident, int streamed, bool causal) {
  return !causal || (kResident == Resident::kKeys ? resident <= streamed : streamed <= resident);
}

// Tiles of resident rows. Long sequences come first, so that a launch does not end with a few late blocks; a sequence's
// tiles are neighbours and find its streamed rows in the L2 cache.
template <Resident kResident>
std::vector<WorkItem> list_work(const AttentionInputs& args, int tile) {
  const bool keys = kResident == Resident::kKeys;
  const std::int32_t* const resident = keys ? args.key_offsets : args.query_offsets;
  const std::int32_t* const streamed = keys ? args.query_offsets : args.key_offsets;
  std::vector<std::int64_t> order(static_cast<std::size_t>(args.sequences));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return streamed[a + 1] - streamed[a] > streamed[b + 1] - streamed[b];
  });
  std::vector<WorkItem> items;
  for (const std::int64_t s : order) {
    const std::int32_t rows = resident[s + 1] - resident[s];
    for (std::int32_t first = 0; first < rows; first += tile) {
      items.push_back({resident[s] + first, first, std::min(tile, rows - first), streamed[s],
                       streamed[s + 1] - streamed[s]});
    }
  }
  return items;
}

template <Resident kResident, typename T>
Operands<T> operands_of(const AttentionBackwardArgs& args, const Statistic* statistics, const WorkItem* items) {
  const auto input = [](const ConstMatrixView& view) { return Rows<const T>{view.as<T>(), view.stride}; };
  const auto gradient = [](const MatrixView& view) { return Rows<T>{view.as<T>(), view.stride}; };
  Operands<T> operands{};
  if constexpr (kResident == Resident::kKeys) {
    operands.resident1 = input(args.key);
    operands.resident2 = input(args.value);
    operands.streamed1 = input(args.query);
    operands.streamed2 = input(args.grad_output);
    operands.gradient1 = gradient(args.grad_key);
    operands.gradient2 = gradient(args.grad_value);
  } else {
    operands.resident1 = input(args.query);
    operands.resident2 = input(args.grad_output);
    operands.streamed1 = input(args.key);
    operands.streamed2 = input(args.value);
    operands.gradient1 = gradient(args.grad_query);
  }
  operands.statistics = statistics;
  operands.queries = args.query.rows;
  operands.items = items;
  operands.heads = args.heads;
  operands.head_dim = args.head_dim;
  operands.causal = args.causal;
  operands.scale = args.scale;
  return operands;
}

}  // namespace siglip2::cuda::attention_backward
