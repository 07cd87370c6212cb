// Attention of one head on CPUs, or of some of its queries: what the operation (attention_cpu.cc) and the fused first
// half of a transformer block (ops/self_attention) are made of.
//
// Plan. Vector lanes are queries. A group of kTileColumns queries is transposed once, scaled, to [head_dim][queries];
// then scores and output are both products of the register tile of cpu/simd/tile.h with nothing reduced across lanes:
//
//   scores [keys][queries]     = key [keys][head_dim] · queryᵀ [head_dim][queries]
//   outputᵀ [head_dim][queries] = valueᵀ [head_dim][keys] · weights [keys][queries]
//
// and softmax runs down the columns. For each tile of keys a task copies keys and values side by side into scratch
// (they stay in the L2 cache for all groups of the task) and takes group after group, whose scores (L1) never leave the
// core. Running maxima and sums join the tiles of keys. Scores are in units of log 2, so that their exponential is a
// power of two. Tiles of keys and groups of queries are cut by the lengths alone, so results do not depend on the
// tasks.
//
// With products in bfloat16 both are products of cpu/simd/pair_tile.h: depths, which are head_dim and keys, lie in
// pairs (cpu/simd/pair_panels.h), and a group's weights are rounded and joined where the scores were.
//
// Floor: 2·head_dim multiply-adds, twice the rate in bfloat16 where the machine has it, and one exponential a score.
#pragma once

#include "ops/attention/attention.h"
#include "ops/attention/attention_panels.h"

namespace siglip2::SIGLIP2_ISA {

// Queries [first_query, first_query + queries) of one head of a sequence, counted from its start.
struct HeadTask {
  std::int64_t query_row;  // row of the sequence's first query
  std::int64_t key_row;
  std::int64_t keys;
  std::int64_t first_query;
  std::int64_t queries;
  std::int64_t head;
};

// As many queries as a task may have without leaving the L2 cache; a multiple of kTileColumns.
std::int64_t most_queries_of(int head_dim);

class HeadAttention {
 public:
  // For tasks of at most `queries` queries.
  HeadAttention(int head_dim, DType product_type, std::int64_t queries);

  std::int64_t scratch_floats() const { return scratch_floats_; }
  // Writes the task's part of the output, and of log_sum_exp. Of `args` the matrices, head_dim, causal and scale are
  // read; `memory` has scratch_floats. Within a MatrixUnitScope for products in bfloat16.
  void run(const AttentionArgs& args, const HeadTask& task, float* memory) const;

 private:
  HeadLayout layout_;
  std::int64_t groups_;
  std::int64_t scratch_floats_;
};

}  // namespace siglip2::SIGLIP2_ISA
