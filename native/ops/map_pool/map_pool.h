// The attention of the multihead attention pooling (MAP) head: one learned query, the probe, attends to every token of
// a sequence. Because the probe is a parameter, keys are never formed: with u_h = scale · W_k,hᵀ (W_q,h probe + b_q,h)
// the score of token x is u_h·x plus a constant that cancels in the softmax, and because the weights sum to one,
// values are formed only for the pooled token:
//
//   pooled_h = Σ_j softmax_j(u_h · x_j) x_j,   output_h = W_v,h pooled_h + b_v,h
//
//   tokens        [Σ tokens, width]      float32
//   offsets       prefix sums in host memory, sequences + 1 entries
//   probe_keys    [heads, width]         float32: u_h, from `derive_probe_keys`
//   value_weight  [width, width]         float32, row-major [out, in]
//   value_bias    [width]                float32
//   output        [sequences, width]     float32, overwritten; a sequence without tokens gives value_bias
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
};

void map_pool(const OpTable& table, OpContext& context, const MapPoolArgs& args);

void map_pool_reference(OpContext& context, const MapPoolArgs& args);

// u [heads, width] from the probe [width] and the query and key parts of the joint projection, [width, width] and
// [width] each, computed in double precision. Host memory.
void derive_probe_keys(const float* probe, const float* query_weight, const float* query_bias, const float* key_weight,
                       std::int64_t width, int heads, float* probe_keys);

}  // namespace siglip2
