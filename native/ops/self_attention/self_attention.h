// A transformer block's first half in one operation, with no intermediate activations of a whole batch in memory:
//
//   output = residual + out_proj(attention(query, key, value)),
//   query, key, value = query_key_value(layer_norm(input)), scores scaled by head_dim^-0.5
//
//   input, output,   [Σ tokens, width]   float32, or bfloat16 where the device computes in it; width = heads·head_dim;
//   residual                             output is overwritten, and may be input and residual
//   norm             of the input; without weight there is none
//   query_key_value  [3·width, width]    packed weights of one type (ops/linear), biases float32, optional
//   out_proj         [width, width]
//   offsets          prefix sums in host memory, sequences + 1 entries, first 0, last the number of rows
//
// The same bits as layer_norm, linear, attention and linear with residual one after the other, where attention's
// products are in bfloat16 if weights are narrower than activations, and in the activations' type otherwise.
#pragma once

#include <vector>

#include "ops/attention/attention.h"
#include "ops/layer_norm/layer_norm.h"
#include "ops/linear/linear.h"

namespace siglip2 {

struct SelfAttentionArgs {
  ConstMatrixView input;
  NormParameters norm;
  PackedWeight query_key_value;
  const float* query_key_value_bias = nullptr;
  PackedWeight out_proj;
  const float* out_proj_bias = nullptr;
  const std::int32_t* offsets = nullptr;
  std::int64_t sequences = 0;
  int heads = 1;
  ConstMatrixView residual;  // data == nullptr: none
  MatrixView output;

  int head_dim() const { return static_cast<int>(input.columns / heads); }
};

// The type in which a device that stores `activations` and weights of type `weight` multiplies attention's operands:
// CPUs that multiply in a narrower type than they store do so here too, but never in int8, where a product of two
// activations would need scales along its depth.
inline DType attention_product_type(DType activations, DType weight) {
  const bool narrow = activations == DType::kFloat32 && weight != DType::kFloat32;
  return narrow ? DType::kBFloat16 : DType::kFloat32;
}

// Sequences [first, end) of a batch, and their rows.
struct SequenceBlock {
  std::int64_t first, end;
  std::int64_t first_row, rows;
};

// A batch in about `count` blocks of whole sequences, as even as these allow.
std::vector<SequenceBlock> cut_sequences(const std::int32_t* offsets, std::int64_t sequences, std::int64_t count);

// The blocks that one thread takes after the other, for so many threads: of at most a few hundred rows, unless one
// sequence has more.
std::vector<SequenceBlock> self_attention_blocks(const std::int32_t* offsets, std::int64_t sequences,
                                                 std::int64_t threads);

// Whether the device has this operation, and gains by it with such sequences: a block is one thread's, so all cores
// must be given about as much, and no sequence may be so long that what a thread keeps of it leaves the caches.
bool fuses_self_attention(const OpTable& table, const std::int32_t* offsets, std::int64_t sequences);

// Throws ERR_SIGLIP_SHAPE when the arguments do not fit each other.
void check_self_attention(const OpTable& table, const SelfAttentionArgs& args);

// Only on devices that have it. Checks the arguments and runs the kernel. No rows: does nothing.
void self_attention(const OpTable& table, OpContext& context, const SelfAttentionArgs& args);

}  // namespace siglip2
