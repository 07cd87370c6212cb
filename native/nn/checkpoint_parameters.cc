#include "nn/checkpoint_parameters.h"

#include <algorithm>
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

CheckpointParameters::CheckpointParameters(Device& device, DType type, std::shared_ptr<const Checkpoint> checkpoint,
                                           int threads, std::shared_ptr<const CancelToken> cancel,
                                           std::shared_ptr<PackedStore> store)
    : device_(device),
      weight_type_(type),
      activation_type_(activation_type_for(device.table(), type)),
      checkpoint_(std::move(checkpoint)),
      cancel_(std::move(cancel)),
      store_(std::move(store)),
      context_(device.context(threads)) {}

Checkpoint::Tensor CheckpointParameters::find(const std::string& name,
                                              std::initializer_list<std::int64_t> shape) const {
  cancel_->check();
  const Checkpoint::Tensor tensor = checkpoint_->tensor(name);
  const std::vector<std::int64_t>& found = tensor.entry->shape;
  if (!std::equal(shape.begin(), shape.end(), found.begin(), found.end()))
    throw Error(kErrorCheckpoint,
                name + ": expected shape " + describe_shape(shape) + ", the checkpoint has " + describe_shape(found));
  return tensor;
}

void* CheckpointParameters::allocate(std::size_t bytes) {
  buffers_.emplace_back(device_, bytes);
  bytes_ += bytes;
  return buffers_.back().data();
}

std::vector<float> CheckpointParameters::read(const std::string& name, std::initializer_list<std::int64_t> shape) {
  const Checkpoint::Tensor tensor = find(name, shape);
  std::vector<float> values(static_cast<std::size_t>(tensor.elements()));
  widen_to_float(tensor.entry->dtype, tensor.data, values.data(), values.size());
  checkpoint_->release_pages(name);
  return values;
}

const float* CheckpointParameters::upload(const float* values, std::size_t count) {
  const std::size_t bytes = count * sizeof(float);
  void* const memory = allocate(bytes);
  device_.table().copy_to_device(context_, memory, values, bytes);
  return static_cast<const float*>(memory);
}

PackedWeight CheckpointParameters::pack(const std::string& name, const std::vector<ConstMatrixView>& parts) {
  const bool in_block = name.find(".encoder.layers.") != std::string::npos;
  const DType type = weight_type_ == DType::kInt8 && !in_block ? DType::kBFloat16 : weight_type_;
  std::int64_t out_features = 0;
  for (const ConstMatrixView& part : parts)
    out_features += part.rows;
  const std::int64_t in_features = parts.front().columns;
  const std::size_t bytes = device_.table().packed_weight_bytes(out_features, in_features, type);
  if (store_ != nullptr) {
    if (const void* const kept = store_->find(name, bytes)) {
      bytes_ += bytes;
      return {kept, out_features, in_features, type};
    }
  }
  void* const packed = allocate(bytes);
  pack_weight(device_.table(), context_, {parts.data(), static_cast<int>(parts.size()), packed, false, type});
  if (store_ != nullptr) store_->add(name, packed, bytes);
  return {packed, out_features, in_features, type};
}

VectorWeights CheckpointParameters::vector(const std::string& name, std::initializer_list<std::int64_t> shape) {
  const std::vector<float> values = read(name, shape);
  return {upload(values.data(), values.size())};
}

LinearWeights CheckpointParameters::stacked_linear(const std::string& prefix, std::initializer_list<const char*> names,
                                                   std::int64_t out_features, std::int64_t in_features) {
  std::vector<ConstMatrixView> parts;
  std::vector<float> bias;
  for (const char* name : names) {
    parts.push_back(find(prefix + name + ".weight", {out_features, in_features}).matrix());
    const std::vector<float> part = read(prefix + name + ".bias", {out_features});
    bias.insert(bias.end(), part.begin(), part.end());
  }
  LinearWeights weights;
  weights.weight = pack(prefix, parts);
  weights.bias = upload(bias.data(), bias.size());
  // Packed weights are the only copy that is read from now on.
  for (const char* name : names)
    checkpoint_->release_pages(prefix + name + ".weight");
  return weights;
}

LinearWeights CheckpointParameters::patch_convolution(const std::string& name, std::int64_t width, int patch) {
  const std::vector<float> convolution = read(name + ".weight", {width, 3, patch, patch});
  const std::int64_t patch_dim = std::int64_t{3} * patch * patch;
  std::vector<float> linear(convolution.size());
  convolution_to_linear(convolution.data(), width, patch, linear.data());
  LinearWeights weights;
  weights.weight = pack(name, {{linear.data(), DType::kFloat32, width, patch_dim, patch_dim}});
  weights.bias = vector(name + ".bias", {width}).values;
  return weights;
}

PoolingWeights CheckpointParameters::pooling(const std::string& name, std::int64_t width, int heads) {
  const VectorWeights probe = vector(name + "probe", {1, 1, width});
  const std::vector<float> weight = read(name + "attention.in_proj_weight", {3 * width, width});
  const std::vector<float> bias = read(name + "attention.in_proj_bias", {3 * width});
  const auto square = static_cast<std::size_t>(width * width);
  const auto row = static_cast<std::size_t>(width);
  PoolingWeights weights;
  weights.value_weight = upload(weight.data() + 2 * square, square);
  weights.value_bias = upload(bias.data() + 2 * row, row);

  // The query and key projections are needed only for what is derived from them.
  const DeviceBuffer projections(device_, (2 * square + row) * sizeof(float));
  float* const query_weight = projections.as<float>();
  device_.table().copy_to_device(context_, query_weight, weight.data(), 2 * square * sizeof(float));
  device_.table().copy_to_device(context_, query_weight + 2 * square, bias.data(), row * sizeof(float));
  float* const keys = static_cast<float*>(allocate(static_cast<std::size_t>(heads) * row * sizeof(float)));
  probe_keys(device_.table(), context_,
             {probe.values, query_weight, query_weight + 2 * square, query_weight + square, width, heads, keys});
  weights.probe_keys = keys;
  return weights;
}

TokenTable CheckpointParameters::token_table(const std::string& name, std::int64_t vocabulary, std::int64_t width) {
  ConstMatrixView table = find(name, {vocabulary, width}).matrix();
  if (device_.table().host_memory) {
    token_table_name_ = name;
    return {table, nullptr};
  }
  const std::size_t bytes = static_cast<std::size_t>(vocabulary * width) * size_of(table.dtype);
  void* const memory = allocate(bytes);
  device_.table().copy_to_device(context_, memory, table.data, bytes);
  checkpoint_->release_pages(name);
  table.data = memory;
  return {table, nullptr};
}

void CheckpointParameters::check_files() const {
  if (store_ != nullptr) store_->check_length();
  if (!token_table_name_.empty()) (void)checkpoint_->tensor(token_table_name_);
}

}  // namespace siglip2
