// Entry points of the CUDA kernels, one file ops/NAME/NAME_cuda.cu a family. Contracts are in ops/NAME/NAME.h.
#pragma once

#include "backend/op_table.h"

namespace siglip2::cuda {

std::size_t packed_weight_bytes_cuda(std::int64_t out_features, std::int64_t in_features, DType dtype);
void pack_weight_cuda(OpContext& context, const PackWeightArgs& args);
void linear_cuda(OpContext& context, const LinearArgs& args);
void linear_backward_cuda(OpContext& context, const LinearBackwardArgs& args);
void layer_norm_cuda(OpContext& context, const LayerNormArgs& args);
void layer_norm_backward_cuda(OpContext& context, const LayerNormBackwardArgs& args);
void gelu_cuda(OpContext& context, const GeluArgs& args);
void gelu_backward_cuda(OpContext& context, const GeluBackwardArgs& args);
void attention_cuda(OpContext& context, const AttentionArgs& args);
void attention_backward_cuda(OpContext& context, const AttentionBackwardArgs& args);
void map_pool_cuda(OpContext& context, const MapPoolArgs& args);
void map_pool_backward_cuda(OpContext& context, const MapPoolBackwardArgs& args);
void probe_keys_cuda(OpContext& context, const ProbeKeysArgs& args);
void probe_keys_backward_cuda(OpContext& context, const ProbeKeysBackwardArgs& args);
void position_embedding_cuda(OpContext& context, const PositionEmbeddingArgs& args);
void position_embedding_backward_cuda(OpContext& context, const PositionEmbeddingBackwardArgs& args);
void token_embedding_cuda(OpContext& context, const TokenEmbeddingArgs& args);
void token_embedding_backward_cuda(OpContext& context, const TokenEmbeddingBackwardArgs& args);
void l2_normalize_cuda(OpContext& context, const L2NormalizeArgs& args);
void l2_normalize_backward_cuda(OpContext& context, const L2NormalizeBackwardArgs& args);
void sigmoid_loss_cuda(OpContext& context, const SigmoidLossArgs& args);
void adam_cuda(OpContext& context, const AdamArgs* parameters, std::int64_t count);
void sum_of_squares_cuda(OpContext& context, const SumOfSquaresArgs* arrays, std::int64_t count);
void convert_cuda(OpContext& context, const ConvertArgs& args);
void patchify_images_cuda(OpContext& context, const PatchifyImagesArgs& args);
void patchify_pixels_cuda(OpContext& context, const PatchifyPixelsArgs& args);

// Fills the operation entries of a table.
void fill_kernels(OpTable& table);

}  // namespace siglip2::cuda
