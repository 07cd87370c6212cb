// What the kernels of attention's backward pass share: their operands, and the list of tiles that their blocks work on.
//
// Each block keeps some rows of one side resident and streams the other side's rows past them:
//
//   resident rows                   streamed rows                    finishes
//   keys: key (1), value (2)        query (1), grad_output (2)       grad_key (1), grad_value (2)
//   queries: query (1), grad_output (2)  key (1), value (2)          grad_query (1)
//
// With R1, R2 the resident and T1, T2 the streamed rows, both compute S = R1 T1ᵀ, dP = R2 T2ᵀ, the weights
// P = exp(scale · S − log_sum_exp), dS = P ∘ (dP − D), and then gradient 1 += scale · dS · T1; with resident keys also
// gradient 2 += P · T2. Only where the statistics of the queries lie differs: along rows of S with resident queries,
// along its columns with resident keys. Every element of a gradient is the sum of one thread in the order of the
// streamed rows, so that results depend on a sequence's inputs alone.
//
// One launch has the blocks of both kinds, those of a sequence close together: the second reads of query, key, value
// and grad_output are then the L2 cache's.
#pragma once

#include <algorithm>
#include <vector>

#include "cuda/prim/bounds.h"
#include "ops/attention/attention.h"

namespace siglip2::cuda::attention_backward {

enum class Resident : std::int32_t { kKeys, kQueries };

// Resident rows of one block, and the rows to stream.
struct WorkItem {
  Resident side;
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
  __device__ __forceinline__ Rows from(std::int64_t row, std::int64_t column) const {
    return {data + row * stride + column, stride};
  }
};

template <typename T>
struct Operands {
  Rows<const T> query, key, value, grad_output;
  Rows<T> grad_query, grad_key, grad_value;
  const Statistic* statistics;
  std::int64_t queries;
  const WorkItem* items;
  int heads;
  int head_dim;
  bool causal;
  float scale;
};

// The matrices in their roles for one item and head: from the item's first rows and the head's first column on.
template <Resident kResident, typename T>
struct Roles {
  static constexpr bool kKeys = kResident == Resident::kKeys;
  Rows<const T> resident1, resident2, streamed1, streamed2;
  Rows<T> gradient1, gradient2;  // the second only with resident keys

  __device__ __forceinline__ Roles(const Operands<T>& operands, const WorkItem& item, std::int64_t column)
      : resident1((kKeys ? operands.key : operands.query).from(item.resident_row, column)),
        resident2((kKeys ? operands.value : operands.grad_output).from(item.resident_row, column)),
        streamed1((kKeys ? operands.query : operands.key).from(item.streamed_row, column)),
        streamed2((kKeys ? operands.grad_output : operands.value).from(item.streamed_row, column)),
        gradient1((kKeys ? operands.grad_key : operands.grad_query).from(item.resident_row, column)),
        gradient2(operands.grad_value.from(item.resident_row, column)) {}
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
  return !causal || in_bounds(kResident == Resident::kKeys ? resident <= streamed : streamed <= resident);
}

// Tiles of resident rows of both kinds, those with the most streamed rows to see first, so that a launch does not end
// with a few late blocks. Among equals, a sequence's tiles are neighbours.
inline std::vector<WorkItem> list_work(const AttentionInputs& args, int tile) {
  std::vector<WorkItem> items;
  const auto add = [&](Resident side, const std::int32_t* resident, const std::int32_t* streamed) {
    for (std::int32_t first = resident[0]; first < resident[1]; first += tile) {
      items.push_back({side, first, first - resident[0], std::min(tile, resident[1] - first), streamed[0],
                       streamed[1] - streamed[0]});
    }
  };
  for (std::int64_t s = 0; s < args.sequences; ++s) {
    add(Resident::kKeys, args.key_offsets + s, args.query_offsets + s);
    add(Resident::kQueries, args.query_offsets + s, args.key_offsets + s);
  }
  const auto visible = [&](const WorkItem& item) {
    if (!args.causal) return item.streamed_rows;
    return item.side == Resident::kKeys ? item.streamed_rows - item.resident_position
                                        : std::min(item.streamed_rows, item.resident_position + item.resident_rows);
  };
  std::stable_sort(items.begin(), items.end(),
                   [&](const WorkItem& a, const WorkItem& b) { return visible(a) > visible(b); });
  return items;
}

template <typename T>
Operands<T> operands_of(const AttentionBackwardArgs& args, const Statistic* statistics, const WorkItem* items) {
  const auto input = [](const ConstMatrixView& view) { return Rows<const T>{view.as<T>(), view.stride}; };
  const auto gradient = [](const MatrixView& view) { return Rows<T>{view.as<T>(), view.stride}; };
  return {input(args.query),
          input(args.key),
          input(args.value),
          input(args.grad_output),
          gradient(args.grad_query),
          gradient(args.grad_key),
          gradient(args.grad_value),
          statistics,
          args.query.rows,
          items,
          args.heads,
          args.head_dim,
          args.causal,
          args.scale};
}

// Starts the kernel on tensor cores; null where the general one must do it.
using MmaStart = void (*)(OpContext& context, const AttentionBackwardArgs& args, const Statistic* statistics);
MmaStart mma_start(const AttentionBackwardArgs& args);

}  // namespace siglip2::cuda::attention_backward
