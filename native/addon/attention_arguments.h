// The arguments that the kernel functions of attention and of its gradients share.
#pragma once

#include "addon/kernel_arguments.h"
#include "ops/attention/attention.h"
#include "tensor/shape_check.h"

namespace siglip2::addon {

// query [Σq, heads, headDim], key, value [Σk, heads, headDim], queryOffsets, keyOffsets, causal, scale.
struct AttentionTensors {
  TensorPointer query;
  TensorPointer key;
  TensorPointer value;
  std::vector<std::int32_t> query_offsets;
  std::vector<std::int32_t> key_offsets;
  bool causal;
  float scale;

  explicit AttentionTensors(KernelArguments& arguments)
      : query(arguments.activation("query", 3)),
        key(arguments.activation("key", 3)),
        value(arguments.activation_of_shape("value", key->shape)),
        query_offsets(to_int32s(arguments.get("queryOffsets"), "queryOffsets")),
        key_offsets(to_int32s(arguments.get("keyOffsets"), "keyOffsets")),
        causal(to_boolean(arguments.get("causal"), "causal")),
        scale(static_cast<float>(to_number(arguments.get("scale"), "scale"))) {
    if (query->shape[1] != key->shape[1] || query->shape[2] != key->shape[2])
      throw Error(kErrorShape, "key: expected the query's heads and head dimension " + describe(query->shape) +
                                   ", got " + describe(key->shape));
    if (query_offsets.empty() || query_offsets.size() != key_offsets.size())
      throw Error(kErrorShape, "keyOffsets: expected as many entries as queryOffsets, at least one");
  }

  // The option `productDtype`; products of operands that lie rounded are made in their type.
  DType product_type(const KernelArguments& arguments) const {
    const bool rounded = query->device->table().rounded_operands && query->dtype == DType::kBFloat16;
    return arguments.type("productDtype", rounded ? DType::kBFloat16 : DType::kFloat32);
  }
  // The type of activations beside the operands.
  DType activation_type(DType product_type) const {
    return activations_beside(query->dtype, product_type, query->device->table().rounded_operands);
  }
  // Valid as long as this object.
  AttentionInputs inputs() const {
    AttentionInputs inputs;
    inputs.query = matrix(*query);
    inputs.key = matrix(*key);
    inputs.value = matrix(*value);
    inputs.query_offsets = query_offsets.data();
    inputs.key_offsets = key_offsets.data();
    inputs.sequences = static_cast<std::int64_t>(query_offsets.size()) - 1;
    inputs.heads = static_cast<int>(query->shape[1]);
    inputs.head_dim = static_cast<int>(query->shape[2]);
    inputs.causal = causal;
    inputs.scale = scale;
    return inputs;
  }
};

}  // namespace siglip2::addon
