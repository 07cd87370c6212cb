// Attention on CPUs: heads and tiles of queries of all sequences, shared by the threads. What a task does is in
// attention_head.h.
#include "ops/attention/attention.h"

#include "cpu/kernels.h"
#include "cpu/simd/matrix_unit.h"
#include "cpu/thread_pool.h"
#include "ops/attention/attention_head.h"

namespace siglip2::SIGLIP2_ISA {

void attention_cpu(OpContext& context, const AttentionArgs& args) {
  constexpr std::int64_t kFewQueries = 64;  // of a task when there are too few tasks for the threads
  const auto tasks_with = [&](std::int64_t tile) {
    std::int64_t tasks = 0;
    for (std::int64_t s = 0; s < args.sequences; ++s) {
      tasks += args.heads * divide_up(args.query_offsets[s + 1] - args.query_offsets[s], tile);
    }
    return tasks;
  };
  std::int64_t tile = most_queries_of(args.head_dim);
  if (tile > kFewQueries && tasks_with(tile) < 4 * context.threads) tile = kFewQueries;
  const HeadAttention attention(args.head_dim, args.product_type, tile);

  cpu::parallel_for(tasks_with(tile), context.threads, [&](std::int64_t index, int worker) {
    std::int64_t s = 0, tiles = 0;
    for (;; ++s) {
      tiles = divide_up(args.query_offsets[s + 1] - args.query_offsets[s], tile);
      if (index < tiles * args.heads) break;
      index -= tiles * args.heads;
    }
    HeadTask task;
    task.query_row = args.query_offsets[s];
    task.key_row = args.key_offsets[s];
    task.keys = args.key_offsets[s + 1] - args.key_offsets[s];
    task.head = index / tiles;
    task.first_query = index % tiles * tile;
    task.queries = smaller(tile, args.query_offsets[s + 1] - args.query_offsets[s] - task.first_query);
    const auto bytes = static_cast<std::size_t>(attention.scratch_floats()) * sizeof(float);
    const MatrixUnitScope matrix_unit(args.product_type == DType::kBFloat16);
    attention.run(args, task, static_cast<float*>(cpu::worker_scratch(worker, bytes)));
  });
}

}  // namespace siglip2::SIGLIP2_ISA
