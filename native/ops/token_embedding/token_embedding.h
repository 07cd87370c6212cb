// Text embeddings: output[r] = table[ids[r]] + positions[r mod length].
//
//   ids        [sequences · length] in host memory, each from 0 to vocabulary − 1 (checked)
//   table      [vocabulary, width]  float32, float16 or bfloat16, no alignment needed (a mapped file)
//   positions  [length, width]      float32
//   output     [sequences · length, width]  float32, overwritten
#pragma once

#include <cstdint>

#include "backend/op_table.h"
#include "tensor/matrix_view.h"

namespace siglip2 {

struct TokenEmbeddingArgs {
  const std::int32_t* ids = nullptr;
  std::int64_t length = 0;
  ConstMatrixView table;
  const float* positions = nullptr;
  MatrixView output;
};

void token_embedding(const OpTable& table, OpContext& context, const TokenEmbeddingArgs& args);

void token_embedding_reference(OpContext& context, const TokenEmbeddingArgs& args);

}  // namespace siglip2
