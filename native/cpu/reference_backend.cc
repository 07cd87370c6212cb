#include "cpu/cpu_backend.h"
#include "cpu/host_memory_ops.h"
#include "ops/adam/adam.h"
#include "ops/attention/attention.h"
#include "ops/convert/convert.h"
#include "ops/gelu/gelu.h"
#include "ops/l2_normalize/l2_normalize.h"
#include "ops/layer_norm/layer_norm.h"
#include "ops/linear/linear.h"
#include "ops/map_pool/map_pool.h"
#include "ops/patchify/patchify.h"
#include "ops/position_embedding/position_embedding.h"
#include "ops/sigmoid_loss/sigmoid_loss.h"
#include "ops/sum_of_squares/sum_of_squares.h"
#include "ops/token_embedding/token_embedding.h"

namespace siglip2::cpu {

const OpTable& reference_table() {
  static const OpTable table = [] {
    OpTable filled{};
    filled.name = "reference";
    fill_host_memory_ops(filled);
    filled.packed_weight_bytes = packed_weight_bytes_reference;
    filled.pack_weight = pack_weight_reference;
    filled.linear = linear_reference;
    filled.linear_backward = linear_backward_reference;
    filled.layer_norm = layer_norm_reference;
    filled.layer_norm_backward = layer_norm_backward_reference;
    filled.gelu = gelu_reference;
    filled.gelu_backward = gelu_backward_reference;
    filled.attention = attention_reference;
    filled.attention_backward = attention_backward_reference;
    filled.map_pool = map_pool_reference;
    filled.map_pool_backward = map_pool_backward_reference;
    filled.probe_keys = probe_keys_reference;
    filled.probe_keys_backward = probe_keys_backward_reference;
    filled.position_embedding = position_embedding_reference;
    filled.position_embedding_backward = position_embedding_backward_reference;
    filled.token_embedding = token_embedding_reference;
    filled.token_embedding_backward = token_embedding_backward_reference;
    filled.l2_normalize = l2_normalize_reference;
    filled.sigmoid_loss = sigmoid_loss_reference;
    filled.l2_normalize_backward = l2_normalize_backward_reference;
    filled.adam = adam_reference;
    filled.sum_of_squares = sum_of_squares_reference;
    filled.convert = convert_reference;
    filled.patchify_images = patchify_images_reference;
    filled.patchify_pixels = patchify_pixels_reference;
    return filled;
  }();
  return table;
}

}  // namespace siglip2::cpu
