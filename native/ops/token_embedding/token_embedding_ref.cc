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

}  // namespace siglip2
