// The attention of the multihead attention pooling (MAP) head: one learned query, the probe, attends to every token of
// a sequence. Because the probe is a parameter, keys are never formed: with u_h = scale · W_k,hᵀ (W_q,h probe + b_q,h)
// the score of token x is u_h·x plus a constant that cancels in the softmax, and because the weights sum to one,
// values are formed only for the pooled token:
//
//   pooled_h = Σ_j softmax_j(u_h · x_j) x_j,   output_h = W_v,h pooled_h + b_v,h
//
//   tokens        [Σ tokens, width]      float32, or bfloat16 where the device computes in it
//   offsets       prefix sums in host memory, sequences + 1 entries, first 0, last the number of tokens
//   probe_keys    [heads, width]         float32: u_h, from `probe_keys`
//   value_weight  [width, width]         float32, row-major [out, in]
//   value_bias    [width]                float32
//   output        [sequences, width]     the tokens' type, overwritten; a sequence without tokens gives value_bias
//
// With `length_bound` (as that of attention, ops/attention) tokens may follow the last sequence that belong to none;
// their numbers change nothing.
//
// Accumulation is float32. Results do not depend on the number of threads.
#pragma once

#include <cstdint>

#include "backend/op_table.h"
#include "tensor/matrix_view.h"

namespace siglip2 {

struct MapPoolArgs {
  ConstMatrixView tokens;
  const std::int32_t* offsets = nullptr;
  std::int64_t sequences = 0;
  int heads = 1;
  const float* probe_keys = nullptr;
  const float* value_weight = nullptr;
  const float* value_bias = nullptr;
  MatrixView output;
  std::int64_t length_bound = 0;
};

// Gradients of the pooling. With w_j = softmax_j(u_h · x_j), p_h = Σ_j w_j x_j and d_h = W_v,hᵀ grad_output_h:
//
//   grad_value_weight_h += grad_output_h p_hᵀ,  grad_value_bias += grad_output         (summed over sequences)
//   s_j = w_j (d_h · x_j − d_h · p_h),  grad_probe_keys_h += Σ_j s_j x_j,  grad_tokens_j = Σ_h (w_j d_h + s_j u_h)
//
//   tokens, offsets, sequences, heads, probe_keys, value_weight   as in the forward pass
//   grad_output        [sequences, width]  the tokens' type
//   grad_tokens        [Σ tokens, width]   the tokens' type, overwritten; data == nullptr: not wanted
//   grad_probe_keys    [heads, width]      float32, accumulated into    } all three or none
//   grad_value_weight  [width, width]      float32, accumulated into    }
//   grad_value_bias    [width]             float32, accumulated into    }
//
// Sums over sequences run in order; results do not depend on the number of threads.
struct MapPoolBackwardArgs {
  ConstMatrixView tokens;
  const std::int32_t* offsets = nullptr;
  std::int64_t sequences = 0;
  int heads = 1;
  const float* probe_keys = nullptr;
  const float* value_weight = nullptr;
  ConstMatrixView grad_output;
  MatrixView grad_tokens;
  float* grad_probe_keys = nullptr;
  float* grad_value_weight = nullptr;
  float* grad_value_bias = nullptr;
  // Workspace, float32, overwritten: [sequences, heads · width] each, for p and d.
  MatrixView pooled;
  MatrixView grad_pooled;
};

// u_h = scale · W_k,hᵀ (W_q,h probe + b_q,h), scale = head_dim^-½, from the probe and the query and key parts of the
// joint projection. Accumulated in double precision. Device memory.
//
//   probe [width], query_weight [width, width], query_bias [width], key_weight [width, width]   float32
//   probe_keys   [heads, width]   float32, overwritten
struct ProbeKeysArgs {
  const float* probe = nullptr;
  const float* query_weight = nullptr;
  const float* query_bias = nullptr;
  const float* key_weight = nullptr;
  std::int64_t width = 0;
  int heads = 1;
  float* probe_keys = nullptr;
};

// Gradients of u with respect to what it is derived from. With q = W_q probe + b_q and du = grad_probe_keys:
//
//   grad_key_weight_h += scale · q_h du_hᵀ,  dq_h = scale · W_k,h du_h,
//   grad_query_weight += dq probeᵀ,  grad_query_bias += dq,  grad_probe += W_qᵀ dq
//
// The bias of the keys has no gradient: it adds the same to every score of a head. Each gradient may be absent.
struct ProbeKeysBackwardArgs {
  ProbeKeysArgs forward;  // probe_keys is not used
  const float* grad_probe_keys = nullptr;
  float* grad_probe = nullptr;
  float* grad_query_weight = nullptr;
  float* grad_query_bias = nullptr;
  float* grad_key_weight = nullptr;
};

void map_pool(const OpTable& table, OpContext& context, const MapPoolArgs& args);
void map_pool_backward(const OpTable& table, OpContext& context, const MapPoolBackwardArgs& args);
void probe_keys(const OpTable& table, OpContext& context, const ProbeKeysArgs& args);
void probe_keys_backward(const OpTable& table, OpContext& context, const ProbeKeysBackwardArgs& args);

void map_pool_reference(OpContext& context, const MapPoolArgs& args);
void map_pool_backward_reference(OpContext& context, const MapPoolBackwardArgs& args);
void probe_keys_reference(OpContext& context, const ProbeKeysArgs& args);
void probe_keys_backward_reference(OpContext& context, const ProbeKeysBackwardArgs& args);

}  // namespace siglip2
