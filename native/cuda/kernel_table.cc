#include "cuda/kernels.h"

namespace siglip2::cuda {

void fill_kernels(OpTable& table) {
  table.packed_weight_bytes = packed_weight_bytes_cuda;
  table.pack_weight = pack_weight_cuda;
  table.linear = linear_cuda;
  table.linear_backward = linear_backward_cuda;
  table.layer_norm = layer_norm_cuda;
  table.layer_norm_backward = layer_norm_backward_cuda;
  table.gelu = gelu_cuda;
  table.gelu_backward = gelu_backward_cuda;
  table.attention = attention_cuda;
  table.attention_backward = attention_backward_cuda;
  table.map_pool = map_pool_cuda;
  table.map_pool_backward = map_pool_backward_cuda;
  table.probe_keys = probe_keys_cuda;
  table.probe_keys_backward = probe_keys_backward_cuda;
  table.position_embedding = position_embedding_cuda;
  table.position_embedding_backward = position_embedding_backward_cuda;
  table.token_embedding = token_embedding_cuda;
  table.token_embedding_backward = token_embedding_backward_cuda;
  table.l2_normalize = l2_normalize_cuda;
  table.sigmoid_loss = sigmoid_loss_cuda;
  table.l2_normalize_backward = l2_normalize_backward_cuda;
  table.adam = adam_cuda;
  table.sum_of_squares = sum_of_squares_cuda;
  table.convert = convert_cuda;
  table.patchify_images = patchify_images_cuda;
  table.patchify_pixels = patchify_pixels_cuda;
}

}  // namespace siglip2::cuda
