#include "ops/self_attention/self_attention.h"

#include <algorithm>

#include "cpu/thread_pool.h"
#include "tensor/shape_check.h"

namespace siglip2 {

std::vector<SequenceBlock> cut_sequences(const std::int32_t* offsets, std::int64_t sequences, std::int64_t count) {
  std::vector<SequenceBlock> blocks;
  const std::int64_t rows = sequences > 0 ? offsets[sequences] : 0;
  std::int64_t sequence = 0;
  while (sequence < sequences) {
    SequenceBlock block = {sequence, sequence + 1, offsets[sequence], 0};
    const auto end = static_cast<std::int64_t>(blocks.size() + 1) * rows / count;
    while (block.end < sequences && offsets[block.end + 1] <= end)
      ++block.end;
    block.rows = offsets[block.end] - block.first_row;
    sequence = block.end;
    blocks.push_back(block);
  }
  return blocks;
}

std::vector<SequenceBlock> self_attention_blocks(const std::int32_t* offsets, std::int64_t sequences,
                                                 std::int64_t threads) {
  constexpr std::int64_t kMostRows = 256;
  const std::int64_t rows = sequences > 0 ? offsets[sequences] : 0;
  const std::int64_t rounds = (rows + kMostRows * threads - 1) / (kMostRows * threads);
  return cut_sequences(offsets, sequences, std::max<std::int64_t>(rounds, 1) * threads);
}

bool fuses_self_attention(const OpTable& table, const std::int32_t* offsets, std::int64_t sequences) {
  constexpr std::int64_t kLongestSequence = 1024, kLeastRowsOfCore = 64;
  constexpr double kMostImbalance = 1.15;
  if (table.self_attention == nullptr) return false;
  // The same answer for the plan of a pass and for the pass, whatever happens to the process's cores between them.
  static const std::int64_t cores = cpu::available_cores();
  if (sequences == 0 || offsets[sequences] < cores * kLeastRowsOfCore) return false;
  std::vector<std::int64_t> loads(static_cast<std::size_t>(cores), 0);
  for (const SequenceBlock& block : self_attention_blocks(offsets, sequences, cores)) {
    if (block.end == block.first + 1 && block.rows > kLongestSequence) return false;
    *std::min_element(loads.begin(), loads.end()) += block.rows;
  }
  const auto most = static_cast<double>(*std::max_element(loads.begin(), loads.end()));
  return most * static_cast<double>(cores) <= kMostImbalance * offsets[sequences];
}

void check_self_attention(const OpTable& table, const SelfAttentionArgs& args) {
  const char* const name = "self_attention";
  const DType type = check_activation_type(name, "input", args.input.dtype, table.name, table.activation_types);
  check_at_least(name, "heads", args.heads, 1);
  const std::int64_t rows = args.input.rows, width = args.input.columns;
  if (width % args.heads != 0)
    throw_shape_error(name,
                      "heads must divide the width " + std::to_string(width) + ", got " + std::to_string(args.heads));
  check_range(name, "head_dim", width / args.heads, 1, kMaxHeadDim);
  check_at_least(name, "sequences", args.sequences, 0);
  check_at_least(name, "rows of input", rows, 0);
  check_matrix(name, "input", args.input, type, rows, width);
  check_matrix(name, "output", args.output, type, rows, width);
  if (args.residual.data != nullptr) check_matrix(name, "residual", args.residual, type, rows, width);
  check_equal(name, "query_key_value.in_features", args.query_key_value.in_features, width);
  check_equal(name, "query_key_value.out_features", args.query_key_value.out_features, 3 * width);
  check_equal(name, "out_proj.in_features", args.out_proj.in_features, width);
  check_equal(name, "out_proj.out_features", args.out_proj.out_features, width);
  if (args.query_key_value.dtype != args.out_proj.dtype)
    throw_shape_error(name, std::string("out_proj must be packed in the type of query_key_value, ") +
                                name_of(args.query_key_value.dtype) + ", got " + name_of(args.out_proj.dtype));
  check_pointer(name, "query_key_value", args.query_key_value.data);
  check_pointer(name, "out_proj", args.out_proj.data);
  if (args.norm.weight != nullptr) check_pointer(name, "norm.bias", args.norm.bias);
  check_offsets(name, "offsets", args.offsets, args.sequences, rows);
}

void self_attention(const OpTable& table, OpContext& context, const SelfAttentionArgs& args) {
  check_self_attention(table, args);
  if (args.input.rows > 0) table.self_attention(context, args);
}

}  // namespace siglip2
