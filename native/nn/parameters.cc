#include "nn/parameters.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "tensor/convert.h"
#include "tensor/error.h"

namespace siglip2 {
namespace {

template <typename Range>
std::string describe_shape(const Range& shape) {
  std::string text = "[";
  for (const std::int64_t size : shape) {
    if (text.size() > 1) text += ", ";
    text += std::to_string(size);
  }
  return text + "]";
}

}  // namespace

Parameters::Parameters(Device& device, const Checkpoint& checkpoint, int threads,
                       std::shared_ptr<const CancelToken> cancel)
    : device_(device), checkpoint_(checkpoint), cancel_(std::move(cancel)) {
  context_.threads = threads;
}

Checkpoint::Tensor Parameters::find(const std::string& name, std::initializer_list<std::int64_t> shape) const {
  cancel_->check();
  const Checkpoint::Tensor tensor = checkpoint_.tensor(name);
  const std::vector<std::int64_t>& found = tensor.entry->shape;
  if (!std::equal(shape.begin(), shape.end(), found.begin(), found.end()))
    throw Error(kErrorCheckpoint,
                name + ": expected shape " + describe_shape(shape) + ", the checkpoint has " + describe_shape(found));
  return tensor;
}

void* Parameters::allocate(std::size_t bytes) {
  buffers_.emplace_back(device_, bytes);
  bytes_ += bytes;
  return buffers_.back().data();
}

std::vector<float> Parameters::read(const std::string& name, std::initializer_list<std::int64_t> shape) {
  const Checkpoint::Tensor tensor = find(name, shape);
  std::vector<float> values(static_cast<std::size_t>(tensor.elements()));
  widen_to_float(tensor.entry->dtype, tensor.data, values.data(), values.size());
  checkpoint_.release_pages(name);
  return values;
}

const float* Parameters::upload(const std::vector<float>& values) {
  const std::size_t bytes = values.size() * sizeof(float);
  void* const memory = allocate(bytes);
  device_.table().copy_to_device(context_, memory, values.data(), bytes);
  return static_cast<const float*>(memory);
}

const float* Parameters::vector(const std::string& name, std::initializer_list<std::int64_t> shape) {
  return upload(read(name, shape));
}

PackedWeight Parameters::pack(const std::vector<ConstMatrixView>& parts) {
  std::int64_t out_features = 0;
  for (const ConstMatrixView& part : parts)
    out_features += part.rows;
  const std::int64_t in_features = parts.front().columns;
  void* const packed = allocate(device_.table().packed_weight_bytes(out_features, in_features));
  pack_weight(device_.table(), context_, {parts.data(), static_cast<int>(parts.size()), packed});
  return {packed, out_features, in_features};
}

LinearWeights Parameters::linear(const std::string& name, std::int64_t out_features, std::int64_t in_features) {
  return stacked_linear(name, {""}, out_features, in_features);
}

LinearWeights Parameters::stacked_linear(const std::string& prefix, std::initializer_list<const char*> names,
                                         std::int64_t out_features, std::int64_t in_features) {
  std::vector<ConstMatrixView> parts;
  std::vector<float> bias;
  for (const char* name : names) {
    parts.push_back(find(prefix + name + ".weight", {out_features, in_features}).matrix());
    const std::vector<float> part = read(prefix + name + ".bias", {out_features});
    bias.insert(bias.end(), part.begin(), part.end());
  }
  const LinearWeights weights{pack(parts), upload(bias)};
  // Packed weights are the only copy that is read from now on.
  for (const char* name : names)
    checkpoint_.release_pages(prefix + name + ".weight");
  return weights;
}

LayerNormWeights Parameters::layer_norm(const std::string& name, std::int64_t width) {
  return {vector(name + ".weight", {width}), vector(name + ".bias", {width})};
}

}  // namespace siglip2
