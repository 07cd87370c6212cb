// Text embeddings: output[r] = table[ids[r]] + positions[r mod length].
//
//   ids        [sequences · length] in host memory, each from 0 to vocabulary − 1 (checked)
//   table      [vocabulary, width]  float32, float16 or bfloat16, no alignment needed (a mapped file); in
//              device memory
//   positions  [length, width]      float32
//   output     [sequences · length, width]  float32, or bfloat16 where the device computes in it; overwritten
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

// Gradients of text embeddings. The table's gradient is sparse: only rows whose ids occur have one, and the caller
// numbers those rows ("slots") for the whole batch.
//
//   slots           [sequences · length] in host memory: the slot of each position's id, from 0 to slot_count − 1
//   grad_output     [sequences · length, width]  float32 or bfloat16
//   grad_table      [slot_count, width]          float32, dense, accumulated into; optional
//   grad_positions  [length, width]              float32, dense, accumulated into; optional
//
// Sums run over positions in order; results do not depend on the number of threads.
struct TokenEmbeddingBackwardArgs {
  const std::int32_t* slots = nullptr;
  std::int64_t slot_count = 0;
  std::int64_t length = 0;
  ConstMatrixView grad_output;
  float* grad_table = nullptr;
  float* grad_positions = nullptr;
};

void token_embedding(const OpTable& table, OpContext& context, const TokenEmbeddingArgs& args);
void token_embedding_backward(const OpTable& table, OpContext& context, const TokenEmbeddingBackwardArgs& args);

void token_embedding_reference(OpContext& context, const TokenEmbeddingArgs& args);
void token_embedding_backward_reference(OpContext& context, const TokenEmbeddingBackwardArgs& args);

}  // namespace siglip2
