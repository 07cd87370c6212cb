// Entry points of the CPU kernels in the build that SIGLIP2_ISA names. Contracts are in ops/NAME/NAME.h.
#pragma once

#include "backend/op_table.h"
#include "cpu/isa.h"

namespace siglip2::SIGLIP2_ISA {

std::size_t packed_weight_bytes_cpu(std::int64_t out_features, std::int64_t in_features, DType dtype);
void pack_weight_cpu(OpContext& context, const PackWeightArgs& args);
void linear_cpu(OpContext& context, const LinearArgs& args);
void linear_backward_cpu(OpContext& context, const LinearBackwardArgs& args);
void mlp_cpu(OpContext& context, const MlpArgs& args);
void layer_norm_cpu(OpContext& context, const LayerNormArgs& args);
void layer_norm_backward_cpu(OpContext& context, const LayerNormBackwardArgs& args);
void gelu_cpu(OpContext& context, const GeluArgs& args);
void gelu_backward_cpu(OpContext& context, const GeluBackwardArgs& args);
void attention_cpu(OpContext& context, const AttentionArgs& args);
void attention_backward_cpu(OpContext& context, const AttentionBackwardArgs& args);
void self_attention_cpu(OpContext& context, const SelfAttentionArgs& args);
void map_pool_cpu(OpContext& context, const MapPoolArgs& args);
void map_pool_backward_cpu(OpContext& context, const MapPoolBackwardArgs& args);
void probe_keys_cpu(OpContext& context, const ProbeKeysArgs& args);
void probe_keys_backward_cpu(OpContext& context, const ProbeKeysBackwardArgs& args);
void position_embedding_cpu(OpContext& context, const PositionEmbeddingArgs& args);
void position_embedding_backward_cpu(OpContext& context, const PositionEmbeddingBackwardArgs& args);
void token_embedding_cpu(OpContext& context, const TokenEmbeddingArgs& args);
void token_embedding_backward_cpu(OpContext& context, const TokenEmbeddingBackwardArgs& args);
void l2_normalize_cpu(OpContext& context, const L2NormalizeArgs& args);
void l2_normalize_backward_cpu(OpContext& context, const L2NormalizeBackwardArgs& args);
void sigmoid_loss_cpu(OpContext& context, const SigmoidLossArgs& args);
void adam_cpu(OpContext& context, const AdamArgs* parameters, std::int64_t count);
void sum_of_squares_cpu(OpContext& context, const SumOfSquaresArgs* arrays, std::int64_t count);
void convert_cpu(OpContext& context, const ConvertArgs& args);
void patchify_images_cpu(OpContext& context, const PatchifyImagesArgs& args);
void patchify_pixels_cpu(OpContext& context, const PatchifyPixelsArgs& args);

// Fills the operation entries of a table with this build's kernels.
void fill_kernels(OpTable& table);

}  // namespace siglip2::SIGLIP2_ISA
