#include "cpu/kernels.h"

namespace siglip2::SIGLIP2_ISA {

void fill_kernels(OpTable& table) {
  table.packed_weight_bytes = packed_weight_bytes_cpu;
  table.pack_weight = pack_weight_cpu;
  table.linear = linear_cpu;
  table.linear_backward = linear_backward_cpu;
  table.mlp = mlp_cpu;
  table.layer_norm = layer_norm_cpu;
  table.layer_norm_backward = layer_norm_backward_cpu;
  table.gelu = gelu_cpu;
  table.gelu_backward = gelu_backward_cpu;
  table.attention = attention_cpu;
  table.attention_backward = attention_backward_cpu;
  table.self_attention = self_attention_cpu;
  table.map_pool = map_pool_cpu;
  table.map_pool_backward = map_pool_backward_cpu;
  table.probe_keys = probe_keys_cpu;
  table.probe_keys_backward = probe_keys_backward_cpu;
  table.position_embedding = position_embedding_cpu;
  table.position_embedding_backward = position_embedding_backward_cpu;
  table.token_embedding = token_embedding_cpu;
  table.token_embedding_backward = token_embedding_backward_cpu;
  table.l2_normalize = l2_normalize_cpu;
  table.sigmoid_loss = sigmoid_loss_cpu;
  table.l2_normalize_backward = l2_normalize_backward_cpu;
  table.adam = adam_cpu;
  table.sum_of_squares = sum_of_squares_cpu;
  table.convert = convert_cpu;
  table.patchify_images = patchify_images_cpu;
  table.patchify_pixels = patchify_pixels_cpu;
}

}  // namespace siglip2::SIGLIP2_ISA
