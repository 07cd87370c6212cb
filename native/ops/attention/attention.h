// Scaled dot-product attention over packed ragged sequences, without a score matrix in memory.
//
// For each sequence s, head h and query i:  output = Σ_j softmax_j(scale · q_i·k_j) v_j,
// log_sum_exp = ln Σ_j exp(scale · q_i·k_j), over the keys j of sequence s; with `causal`, over j ≤ i, both counted
// from the start of their sequences.
//
//   query         [Σ queries, heads·head_dim]  float32 or bfloat16 where the device computes in it, one type for all
//                 activations of a call; row stride free (so it may be a slice of a joint product)
//   key, value    [Σ keys, heads·head_dim]     that type, likewise
//   *_offsets     prefix sums in host memory, sequences + 1 entries, first 0, last the number of rows (or fewer: below)
//   output        [Σ queries, heads·head_dim]  that type, overwritten; must not overlap the inputs
//   log_sum_exp   [Σ queries, heads]           float32, overwritten; optional
//
// With products in bfloat16 beside float32 activations, query, key and value may lie rounded, all or none, where the
// device has it (OpTable::rounded_operands); their gradients then do, too. So may the output, and its gradient, each by
// itself.
//
// With `length_bound`, rows may follow the last sequence that belong to none; nothing reads or writes them.
//
// Any head_dim from 1 to 256. Accumulation and softmax are float32. A query without keys gives output 0 and −∞.
// Results do not depend on the number of threads.
#pragma once

#include <cstdint>

#include "backend/op_table.h"
#include "tensor/matrix_view.h"

namespace siglip2 {

inline constexpr int kMaxHeadDim = 256;

// What both passes read.
struct AttentionInputs {
  ConstMatrixView query;
  ConstMatrixView key;
  ConstMatrixView value;
  const std::int32_t* query_offsets = nullptr;
  const std::int32_t* key_offsets = nullptr;
  std::int64_t sequences = 0;
  int heads = 1;
  int head_dim = 0;
  bool causal = false;
  float scale = 1.0f;
  // 0: what a GPU is asked to do follows the lengths of the sequences. Otherwise no sequence of queries or keys is
  // longer than this, and it follows from this, the number of rows and the number of sequences alone, so that batches
  // of other lengths ask for the same (docs/kernels/runtime.md). Forward only.
  std::int64_t length_bound = 0;
};

// head_dim^-0.5, the factor of scores that both towers have.
float attention_scale(int head_dim);

// What sequences that attend to themselves are read from: rows of query, key and value side by side, `joint`
// [rows, 3·width], in heads of width / heads, with the towers' scale.
AttentionInputs joint_attention(const ConstMatrixView& joint, int heads, const std::int32_t* offsets,
                                std::int64_t sequences);

struct AttentionArgs : AttentionInputs {
  MatrixView output;
  MatrixView log_sum_exp;  // data == nullptr: not wanted
  // bfloat16 beside float32 activations, on devices that take weights in it (OpTable::weight_types): the operands of
  // both products are rounded to it, the query after its multiplication by scale · log₂ e in float32, and the weights
  // before they are divided by their sum. Sums, softmax and log_sum_exp (of weights that are not rounded) are float32.
  // Otherwise float32: products are made in the activations' type.
  DType product_type = DType::kFloat32;
};

// Gradients of attention, recomputing the weights p_ij = exp(scale · q_i·k_j − log_sum_exp_i) from the forward pass's
// log_sum_exp (FlashAttention, arXiv 2205.14135, appendix B). With D_i = grad_output_i · output_i and
// s_ij = p_ij (grad_output_i · v_j − D_i):
//
//   grad_value_j = Σ_i p_ij grad_output_i,  grad_query_i = scale Σ_j s_ij k_j,  grad_key_j = scale Σ_i s_ij q_i
//
//   query, key, value, offsets, heads, head_dim, causal, scale   as in the forward pass
//   output, grad_output                [Σ queries, heads·head_dim]  the activations' type
//   log_sum_exp                        [Σ queries, heads]           float32
//   grad_query                         [Σ queries, heads·head_dim]  the activations' type, overwritten
//   grad_key, grad_value               [Σ keys, heads·head_dim]     the activations' type, overwritten
//
// With products in bfloat16 the operands of all five are rounded to it: those of the scores as in the forward pass, and
// value_j, grad_output_i, p_ij, s_ij, k_j and q_i. Sums, D_i and everything between products are float32.
//
// No gradient may overlap an input; strides are free (gradients may be slices of one joint matrix). A query without
// keys has gradient 0, a key without queries too. Deterministic: results do not depend on the number of threads.
struct AttentionBackwardArgs : AttentionInputs {
  ConstMatrixView output;
  ConstMatrixView log_sum_exp;
  ConstMatrixView grad_output;
  MatrixView grad_query;
  MatrixView grad_key;
  MatrixView grad_value;
  DType product_type = DType::kFloat32;  // as in AttentionArgs
};

void attention(const OpTable& table, OpContext& context, const AttentionArgs& args);
void attention_backward(const OpTable& table, OpContext& context, const AttentionBackwardArgs& args);

void attention_reference(OpContext& context, const AttentionArgs& args);
void attention_backward_reference(OpContext& context, const AttentionBackwardArgs& args);

}  // namespace siglip2
