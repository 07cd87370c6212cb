#include "train/parameter_store.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "ops/adam/adam.h"
#include "ops/sum_of_squares/sum_of_squares.h"
#include "tensor/convert.h"
#include "tensor/error.h"
#include "tensor/shape_check.h"

namespace siglip2 {
namespace {

// In a saved training state, float32 like everything there: 0 or 1 for each row of the token table.
constexpr const char* kTouchedRows = "touched_rows";

std::string describe_shape(const std::vector<std::int64_t>& shape) {
  std::string text = "[";
  for (const std::int64_t size : shape)
    text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + "]";
}

std::string tower_of(const std::string& name) {
  return name.substr(0, name.find('.'));
}

// NAME of NAME.weight and NAME.bias, whose gradients are computed together.
std::string stem_of(const std::string& name) {
  for (const std::string suffix : {".weight", ".bias"})
    if (name.ends_with(suffix)) return name.substr(0, name.size() - suffix.size());
  return name;
}

// The gradient of this table holds the rows of a batch alone.
bool is_token_table(const std::string& name) {
  return name.ends_with("token_embedding.weight");
}

// Matrices that are used as they are; those of layers are packed for products.
bool is_unpacked(const std::string& name) {
  return is_token_table(name) || name.ends_with("position_embedding.weight") || name.ends_with("head.probe") ||
         name.ends_with("in_proj_weight");
}

std::size_t bytes_of(std::int64_t floats) {
  return static_cast<std::size_t>(floats) * sizeof(float);
}

}  // namespace

std::string state_name(ParameterPart part, const std::string& name) {
  switch (part) {
    case ParameterPart::kValue:
      return "parameter/" + name;
    case ParameterPart::kGradient:
      return "gradient/" + name;
    case ParameterPart::kFirstMoment:
      return "first_moment/" + name;
    case ParameterPart::kSecondMoment:
      return "second_moment/" + name;
    case ParameterPart::kAverage:
      return "average/" + name;
  }
  return name;
}

ParameterStore::ParameterStore(Device& device, DType type, std::vector<ParameterSetting> settings,
                               ParameterSource source, bool average, int threads,
                               std::shared_ptr<const CancelToken> cancel)
    : device_(device),
      weight_type_(type),
      activation_type_(activation_type_for(device.table(), type)),
      settings_(std::move(settings)),
      source_(std::move(source)),
      average_(average),
      cancel_(std::move(cancel)),
      context_(device.context(threads)) {
  for (std::size_t i = 0; i < settings_.size(); ++i)
    setting_index_.emplace(settings_[i].name, i);
  require_memory();
}

void ParameterStore::require_memory() const {
  std::unordered_set<std::string> trained_towers;
  for (const ParameterSetting& each : settings_)
    if (each.trainable) trained_towers.insert(tower_of(each.name));
  std::size_t bytes = 0;
  for (const ParameterSetting& each : settings_) {
    const std::int64_t count = count_elements(each.shape);
    if (count < 0)
      throw Error(kErrorShape, each.name + ": the shape " + describe_shape(each.shape) + " is not possible");
    // The values; gradient, moments and average where it is trained.
    std::int64_t copies = 1;
    if (each.trainable) copies += (is_token_table(each.name) ? 2 : 3) + (average_ ? 1 : 0);
    bytes += bytes_of(count * copies);
    // Matrices of layers are packed, too, and transposed where gradients pass.
    if (each.shape.size() < 2 || is_unpacked(each.name)) continue;
    const std::size_t packed = 1 + trained_towers.count(tower_of(each.name));
    bytes += packed * static_cast<std::size_t>(count) * size_of(weight_type_);
  }
  device_.require_memory(bytes);
}

const ParameterSetting& ParameterStore::setting(const std::string& name) const {
  const auto found = setting_index_.find(name);
  if (found == setting_index_.end())
    throw Error(kErrorCheckpoint, "the parameter " + name + " of this model is not among those given");
  return settings_[found->second];
}

bool ParameterStore::trains(const std::string& stem) const {
  for (const char* suffix : {"", ".weight", ".bias"}) {
    const auto found = setting_index_.find(stem + suffix);
    if (found != setting_index_.end() && settings_[found->second].trainable) return true;
  }
  return false;
}

DeviceBuffer ParameterStore::allocate(std::size_t bytes, std::size_t& counter) {
  DeviceBuffer buffer(device_, bytes);
  counter += bytes;
  device_.table().fill_zero(context_, buffer.data(), bytes);
  return buffer;
}

ParameterStore::Block& ParameterStore::declare(const std::vector<std::string>& names,
                                               const std::vector<std::vector<std::int64_t>>& shapes, bool gradient,
                                               int patch, bool sparse) {
  auto block = std::make_unique<Block>();
  bool trainable = false;
  const std::size_t first_entry = entries_.size();
  for (std::size_t i = 0; i < names.size(); ++i) {
    const ParameterSetting& each = setting(names[i]);
    if (each.shape != shapes[i])
      throw Error(kErrorCheckpoint,
                  names[i] + ": expected shape " + describe_shape(shapes[i]) + ", got " + describe_shape(each.shape));
    const std::int64_t count = count_elements(each.shape);
    entry_index_[names[i]] = entries_.size();
    entries_.push_back({&each, blocks_.size(), block->count, count, patch});
    block->count += count;
    trainable = trainable || each.trainable;
  }
  const std::size_t bytes = bytes_of(block->count);
  block->values = allocate(bytes, bytes_.values);
  if (gradient && !sparse) block->gradient = allocate(bytes, bytes_.gradients);
  if (trainable) {
    block->first_moment = allocate(bytes, bytes_.optimizer);
    block->second_moment = allocate(bytes, bytes_.optimizer);
    if (average_) block->average = allocate(bytes, bytes_.optimizer);
  }
  blocks_.push_back(std::move(block));
  for (std::size_t i = first_entry; i < entries_.size(); ++i) {
    for (const ParameterPart part :
         {ParameterPart::kValue, ParameterPart::kFirstMoment, ParameterPart::kSecondMoment, ParameterPart::kAverage}) {
      float* const memory = part_memory(entries_[i], part);
      if (memory != nullptr) fill(entries_[i], part, memory);
    }
  }
  return *blocks_.back();
}

float* ParameterStore::part_memory(const Entry& entry, ParameterPart part) {
  Block& block = *blocks_[entry.block];
  const DeviceBuffer* buffer = &block.values;
  if (part == ParameterPart::kGradient) buffer = &block.gradient;
  if (part == ParameterPart::kFirstMoment) buffer = &block.first_moment;
  if (part == ParameterPart::kSecondMoment) buffer = &block.second_moment;
  if (part == ParameterPart::kAverage) buffer = &block.average;
  // Moments and averages are kept for a block, but mean nothing for its frozen parameters.
  const bool kept = part == ParameterPart::kValue || part == ParameterPart::kGradient || entry.setting->trainable;
  return buffer->data() == nullptr || !kept ? nullptr : buffer->as<float>() + entry.offset;
}

void ParameterStore::fill(const Entry& entry, ParameterPart part, float* device_values) {
  cancel_->check();
  const bool moment = part == ParameterPart::kFirstMoment || part == ParameterPart::kSecondMoment;
  if (moment && !source_.training_state) return;
  std::vector<float> values(static_cast<std::size_t>(entry.count));
  const std::string& name = entry.setting->name;
  if (source_.checkpoint) {
    std::string stored = source_.training_state ? state_name(part, name) : name;
    // An average begins as the values.
    if (part == ParameterPart::kAverage && !source_.checkpoint->contains(stored))
      stored = source_.training_state ? state_name(ParameterPart::kValue, name) : name;
    const Checkpoint::Tensor tensor = source_.checkpoint->tensor(stored);
    if (tensor.entry->shape != entry.setting->shape)
      throw Error(kErrorCheckpoint, stored + ": expected shape " + describe_shape(entry.setting->shape) +
                                        ", the checkpoint has " + describe_shape(tensor.entry->shape));
    widen_to_float(tensor.entry->dtype, tensor.data, values.data(), values.size());
    source_.checkpoint->release_pages(stored);
  } else if (const std::vector<float>& given = entry.setting->initial_values; !given.empty()) {
    values = given;
  } else {
    // Each parameter has a stream of random numbers of its own, whatever order the towers ask in.
    const auto stream = static_cast<std::uint64_t>(setting_index_.at(name));
    initialize(entry.setting->initialization, source_.seed, stream, values.data(), entry.count, context_.threads);
  }
  if (entry.patch > 0) {
    std::vector<float> linear(values.size());
    convolution_to_linear(values.data(), entry.setting->shape[0], entry.patch, linear.data());
    values.swap(linear);
  }
  device_.table().copy_to_device(context_, device_values, values.data(), bytes_of(entry.count));
}

VectorWeights ParameterStore::vector(const std::string& name, std::initializer_list<std::int64_t> shape) {
  Block& block = declare({name}, {shape}, trains(stem_of(name)));
  return {block.values.as<const float>(), block.gradient.as<float>()};
}

LinearWeights ParameterStore::pack(std::vector<ConstMatrixView> parts, bool trainable_tower) {
  std::int64_t out_features = 0;
  for (const ConstMatrixView& part : parts)
    out_features += part.rows;
  const std::int64_t in_features = parts.front().columns;
  LinearWeights weights;
  PackJob job;
  derived_.push_back(
      allocate(device_.table().packed_weight_bytes(out_features, in_features, weight_type_), bytes_.packed));
  job.packed = derived_.back().data();
  job.transposed = nullptr;
  if (trainable_tower) {
    derived_.push_back(
        allocate(device_.table().packed_weight_bytes(in_features, out_features, weight_type_), bytes_.packed));
    job.transposed = derived_.back().data();
  }
  job.parts = std::move(parts);
  weights.weight = {job.packed, out_features, in_features, weight_type_};
  weights.transposed = {job.transposed, in_features, out_features, weight_type_};
  pack_jobs_.push_back(std::move(job));
  return weights;
}

LinearWeights ParameterStore::stacked_linear(const std::string& prefix, std::initializer_list<const char*> names,
                                             std::int64_t out_features, std::int64_t in_features) {
  std::vector<std::string> weight_names, bias_names;
  bool gradient = false, trainable_tower = false;
  for (const char* name : names) {
    weight_names.push_back(prefix + name + ".weight");
    bias_names.push_back(prefix + name + ".bias");
    gradient = gradient || trains(prefix + name);
  }
  for (const ParameterSetting& each : settings_)
    trainable_tower = trainable_tower || (each.trainable && tower_of(each.name) == tower_of(prefix));
  const std::vector<std::vector<std::int64_t>> weight_shapes(names.size(), {out_features, in_features});
  const std::vector<std::vector<std::int64_t>> bias_shapes(names.size(), {out_features});
  Block& weight = declare(weight_names, weight_shapes, gradient);
  Block& bias = declare(bias_names, bias_shapes, gradient);
  const auto rows = static_cast<std::int64_t>(names.size()) * out_features;
  LinearWeights weights =
      pack({{weight.values.data(), DType::kFloat32, rows, in_features, in_features}}, trainable_tower);
  weights.bias = bias.values.as<const float>();
  weights.grad_weight = weight.gradient.as<float>();
  weights.grad_bias = bias.gradient.as<float>();
  return weights;
}

LinearWeights ParameterStore::patch_convolution(const std::string& name, std::int64_t width, int patch) {
  const bool gradient = trains(name);
  const std::int64_t patch_dim = std::int64_t{3} * patch * patch;
  Block& weight = declare({name + ".weight"}, {{width, 3, patch, patch}}, gradient, patch);
  Block& bias = declare({name + ".bias"}, {{width}}, gradient);
  // Pixels have no gradient, so no transposed weight is needed.
  LinearWeights weights = pack({{weight.values.data(), DType::kFloat32, width, patch_dim, patch_dim}}, false);
  weights.bias = bias.values.as<const float>();
  weights.grad_weight = weight.gradient.as<float>();
  weights.grad_bias = bias.gradient.as<float>();
  return weights;
}

PoolingWeights ParameterStore::pooling(const std::string& name, std::int64_t width, int heads) {
  const std::string projection = name + "attention.in_proj";
  const bool gradient = trains(name + "probe") || trains(projection + "_weight") || trains(projection + "_bias");
  Block& probe = declare({name + "probe"}, {{1, 1, width}}, gradient);
  Block& weight = declare({projection + "_weight"}, {{3 * width, width}}, gradient);
  Block& bias = declare({projection + "_bias"}, {{3 * width}}, gradient);
  derived_.push_back(allocate(bytes_of(heads * width), bytes_.packed));

  const float* const values = weight.values.as<const float>();
  PoolingWeights weights;
  weights.derivation = {probe.values.as<const float>(), values, bias.values.as<const float>(),
                        values + width * width,         width,  heads,
                        derived_.back().as<float>()};
  weights.probe_keys = weights.derivation.probe_keys;
  weights.value_weight = values + 2 * width * width;
  weights.value_bias = bias.values.as<const float>() + 2 * width;
  weights.grad_probe = probe.gradient.as<float>();
  weights.grad_projection_weight = weight.gradient.as<float>();
  weights.grad_projection_bias = bias.gradient.as<float>();
  probe_jobs_.push_back(weights.derivation);
  return weights;
}

TokenTable ParameterStore::token_table(const std::string& name, std::int64_t vocabulary, std::int64_t width) {
  const bool trainable = setting(name).trainable;
  const Block& block = declare({name}, {{vocabulary, width}}, trainable, 0, true);
  TokenTable table;
  table.values = {block.values.data(), DType::kFloat32, vocabulary, width, width};
  if (!trainable) return table;
  table.gradient = &token_gradient_;
  token_table_name_ = name;
  token_width_ = width;
  token_rows_.assign(static_cast<std::size_t>(vocabulary), AdamArgs::kUntouched);
  touched_.assign(static_cast<std::size_t>(vocabulary), 0);
  if (source_.training_state) {
    const Checkpoint::Tensor stored = source_.checkpoint->tensor(kTouchedRows);
    if (stored.entry->shape != std::vector<std::int64_t>{vocabulary})
      throw Error(kErrorCheckpoint, std::string(kTouchedRows) + ": expected shape " + describe_shape({vocabulary}) +
                                        ", the checkpoint has " + describe_shape(stored.entry->shape));
    std::vector<float> touched(touched_.size());
    widen_to_float(stored.entry->dtype, stored.data, touched.data(), touched.size());
    for (std::size_t row = 0; row < touched.size(); ++row)
      touched_[row] = touched[row] != 0;
  }
  return table;
}

ParameterStore::Bytes ParameterStore::memory(std::int64_t tokens) const {
  Bytes bytes = bytes_;
  const std::int64_t rows = std::min(tokens, static_cast<std::int64_t>(touched_.size()));
  bytes.gradients +=
      std::max(bytes_of(rows * token_width_), token_gradient_rows_.bytes()) - token_gradient_rows_.bytes();
  return bytes;
}

void ParameterStore::check_complete() const {
  for (const ParameterSetting& each : settings_)
    if (entry_index_.count(each.name) == 0) throw Error(kErrorCheckpoint, "the model has no parameter " + each.name);
}

std::vector<std::int32_t> ParameterStore::start_gradients(const std::vector<std::int32_t>& ids) {
  for (const auto& block : blocks_)
    if (block->gradient.data() != nullptr)
      device_.table().fill_zero(context_, block->gradient.data(), block->gradient.bytes());
  if (touched_.empty()) return {};

  // Until the end there is no gradient, whatever fails on the way.
  token_gradient_ = {};
  token_ids_.clear();
  const auto vocabulary = static_cast<std::int32_t>(touched_.size());
  for (const std::int32_t id : ids)
    if (id < 0 || id >= vocabulary)
      throw Error(kErrorShape,
                  "inputIds: expected ids from 0 to " + std::to_string(vocabulary - 1) + ", got " + std::to_string(id));
  for (std::size_t row = 0; row < token_rows_.size(); ++row)
    token_rows_[row] = AdamArgs::kZeroGradient;
  std::vector<std::int32_t> slots(ids.size());
  for (std::size_t i = 0; i < ids.size(); ++i) {
    std::int32_t& row = token_rows_[static_cast<std::size_t>(ids[i])];
    if (row == AdamArgs::kZeroGradient) {
      row = static_cast<std::int32_t>(token_ids_.size());
      token_ids_.push_back(ids[i]);
    }
    slots[i] = row;
  }
  const std::size_t bytes = bytes_of(static_cast<std::int64_t>(token_ids_.size()) * token_width_);
  if (bytes > token_gradient_rows_.bytes()) {
    bytes_.gradients -= token_gradient_rows_.bytes();
    token_gradient_rows_ = DeviceBuffer();
    token_gradient_rows_ = allocate(bytes, bytes_.gradients);
  }
  device_.table().fill_zero(context_, token_gradient_rows_.data(), bytes);
  token_gradient_ = {token_gradient_rows_.as<float>(), static_cast<std::int64_t>(token_ids_.size())};
  return slots;
}

ParameterStore::PlannedGradients::PlannedGradients(ParameterStore& store, std::size_t tokens)
    : store_(store), kept_(store.token_gradient_) {
  const std::size_t rows = std::min(tokens, store.touched_.size());
  // Where operations are not counted, nothing looks at the rows.
  if (rows == 0 || store.device_.table().start_planning == nullptr) return;
  slots_.reserve(tokens);
  // Any address: nothing is read or written while a pass is planned.
  store.token_gradient_ = {reinterpret_cast<float*>(std::uintptr_t{256}), static_cast<std::int64_t>(rows)};
  for (std::size_t i = 0; i < tokens; ++i)
    slots_.push_back(static_cast<std::int32_t>(i % rows));
}

double ParameterStore::squared_gradient_norm() {
  std::vector<SumOfSquaresArgs> arrays;
  std::vector<double> parts(entries_.size());
  for (const Entry& entry : entries_) {
    if (!entry.setting->trainable) continue;
    const bool sparse = entry.setting->name == token_table_name_;
    SumOfSquaresArgs args;
    args.values = sparse ? token_gradient_.rows : part_memory(entry, ParameterPart::kGradient);
    args.count = sparse ? token_gradient_.slot_count * token_width_ : entry.count;
    args.result = &parts[arrays.size()];
    arrays.push_back(args);
  }
  sum_of_squares(device_.table(), context_, arrays.data(), static_cast<std::int64_t>(arrays.size()));
  double total = 0;
  for (const double part : parts)
    total += part;
  return total;
}

void ParameterStore::update(const OptimizerStep& step) {
  std::vector<AdamArgs> parameters;
  for (const Entry& entry : entries_) {
    const ParameterSetting& each = *entry.setting;
    if (!each.trainable) continue;
    AdamArgs args;
    args.parameter = part_memory(entry, ParameterPart::kValue);
    args.gradient = part_memory(entry, ParameterPart::kGradient);
    args.first_moment = part_memory(entry, ParameterPart::kFirstMoment);
    args.second_moment = part_memory(entry, ParameterPart::kSecondMoment);
    args.average = part_memory(entry, ParameterPart::kAverage);
    args.rows = 1;
    args.width = entry.count;
    args.step = step.updates;
    args.beta1 = step.beta1;
    args.beta2 = step.beta2;
    args.epsilon = step.epsilon;
    args.step_size = step.learning_rate * each.learning_rate_scale;
    args.decay = step.decay * each.decay_scale;
    args.gradient_scale = step.gradient_scale;
    args.average_decay = step.average_decay;
    if (each.name == token_table_name_) {
      for (const std::int32_t id : token_ids_)
        touched_[static_cast<std::size_t>(id)] = 1;
      for (std::size_t row = 0; row < token_rows_.size(); ++row)
        if (touched_[row] == 0 && args.decay == 0) token_rows_[row] = AdamArgs::kUntouched;
      args.gradient = token_gradient_.rows;
      args.rows = static_cast<std::int64_t>(token_rows_.size());
      args.width = token_width_;
      args.gradient_rows = token_rows_.data();
      args.slots = token_gradient_.slot_count;
    }
    parameters.push_back(args);
  }
  adam(device_.table(), context_, parameters.data(), static_cast<std::int64_t>(parameters.size()));
  refresh();
}

void ParameterStore::refresh() {
  const OpTable& table = device_.table();
  for (const PackJob& job : pack_jobs_) {
    const int parts = static_cast<int>(job.parts.size());
    pack_weight(table, context_, {job.parts.data(), parts, job.packed, false, weight_type_, true});
    if (job.transposed != nullptr)
      pack_weight(table, context_, {job.parts.data(), parts, job.transposed, true, weight_type_, true});
  }
  for (const ProbeKeysArgs& job : probe_jobs_)
    probe_keys(table, context_, job);
}

float ParameterStore::read_scalar(const std::string& name) {
  float value = 0;
  read(name, ParameterPart::kValue, &value);
  return value;
}

void ParameterStore::add_to_gradient(const std::string& name, double value) {
  float* const memory = part_memory(entries_[entry_index_.at(name)], ParameterPart::kGradient);
  if (memory == nullptr) return;
  float sum = 0;
  device_.table().copy_to_host(context_, &sum, memory, sizeof(sum));
  sum = static_cast<float>(sum + value);
  device_.table().copy_to_device(context_, memory, &sum, sizeof(sum));
}

std::int64_t ParameterStore::elements(const std::string& name) const {
  const auto found = entry_index_.find(name);
  if (found == entry_index_.end()) throw Error(kErrorCheckpoint, "the model has no parameter " + name);
  return entries_[found->second].count;
}

void ParameterStore::read(const std::string& name, ParameterPart part, float* host) {
  const std::int64_t count = elements(name);
  const Entry& entry = entries_[entry_index_.at(name)];
  if (part == ParameterPart::kGradient && name == token_table_name_) {
    std::fill(host, host + count, 0.0f);
    for (std::int64_t row = 0; row < token_gradient_.slot_count; ++row)
      device_.table().copy_to_host(context_, host + token_ids_[static_cast<std::size_t>(row)] * token_width_,
                                   token_gradient_.rows + row * token_width_, bytes_of(token_width_));
    return;
  }
  const float* memory = part_memory(entry, part);
  if (memory == nullptr && part == ParameterPart::kAverage) memory = part_memory(entry, ParameterPart::kValue);
  if (memory == nullptr) {
    std::fill(host, host + count, 0.0f);
    return;
  }
  if (entry.patch == 0) {
    device_.table().copy_to_host(context_, host, memory, bytes_of(count));
    return;
  }
  std::vector<float> linear(static_cast<std::size_t>(count));
  device_.table().copy_to_host(context_, linear.data(), memory, bytes_of(count));
  linear_to_convolution(linear.data(), entry.setting->shape[0], entry.patch, host);
}

}  // namespace siglip2
