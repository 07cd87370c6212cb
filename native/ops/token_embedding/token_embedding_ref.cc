#include <vector>

#include "ops/token_embedding/token_embedding.h"
#include "tensor/convert.h"

namespace siglip2 {

void token_embedding_reference(OpContext& context, const TokenEmbeddingArgs& args) {
  const std::int64_t width = args.table.columns;
  const std::size_t row_bytes = static_cast<std::size_t>(args.table.stride) * size_of(args.table.dtype);
  for (std::int64_t row = 0; row < args.output.rows; ++row) {
    float* const output = args.output.as<float>() + row * args.output.stride;
    const float* const position = args.positions + row % args.length * width;
    widen_to_float(args.table.dtype,
                   static_cast<const char*>(args.table.data) + static_cast<std::size_t>(args.ids[row]) * row_bytes,
                   output, static_cast<std::size_t>(width));
    for (std::int64_t i = 0; i < width; ++i)
      output[i] += position[i];
  }
}

void token_embedding_backward_reference(OpContext& context, const TokenEmbeddingBackwardArgs& args) {
  const std::int64_t width = args.grad_output.columns;
  // Sums every row into the row of `target` that `target_of` names.
  const auto sum = [&](float* target, std::int64_t target_rows, auto target_of) {
    std::vector<double> sums(target, target + target_rows * width);
    for (std::int64_t row = 0; row < args.grad_output.rows; ++row) {
      for (std::int64_t i = 0; i < width; ++i)
        sums[static_cast<std::size_t>(target_of(row) * width + i)] +=
            args.grad_output.as<float>()[row * args.grad_output.stride + i];
    }
    for (std::size_t i = 0; i < sums.size(); ++i)
      target[i] = static_cast<float>(sums[i]);
  };
  if (args.grad_table != nullptr) {
    sum(args.grad_table, args.slot_count, [&](std::int64_t row) -> std::int64_t { return args.slots[row]; });
  }
  if (args.grad_positions != nullptr) {
    sum(args.grad_positions, args.length, [&](std::int64_t row) { return row % args.length; });
  }
}

}  // namespace siglip2
