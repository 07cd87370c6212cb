// Parameters in training: master weights in float32, their gradients, the optimiser's moments, and the packed copies
// that the forward and backward passes read, in the type that they compute in.
//
// Towers ask for their parameters as in inference and get pointers into this store. What one product uses together
// (query, key and value) lies together in one block, so that its gradient is one matrix.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "backend/cancel.h"
#include "backend/device.h"
#include "nn/parameters.h"
#include "tensor/checkpoint.h"
#include "train/initialize.h"

namespace siglip2 {

// How one parameter is trained, and what it starts from when no checkpoint says.
struct ParameterSetting {
  std::string name;
  std::vector<std::int64_t> shape;  // as Hugging Face stores it
  bool trainable = true;
  double learning_rate_scale = 1;
  double decay_scale = 0;  // of the weight decay; 0 for parameters that do not decay
  Initialization initialization;
  std::vector<float> initial_values;  // instead of `initialization`, unless empty: as many as `shape` has elements
};

// Where parameters start from.
struct ParameterSource {
  // Fresh values, drawn from `seed`, when there is no checkpoint.
  std::shared_ptr<const Checkpoint> checkpoint;
  std::uint64_t seed = 0;
  // The checkpoint is a saved training state: names carry the prefixes of `prefix_of`, and moments are read too.
  bool training_state = false;
};

// What a store keeps for a parameter.
enum class ParameterPart : std::uint8_t { kValue, kGradient, kFirstMoment, kSecondMoment, kAverage };

// The name of a parameter's part in a saved training state: "first_moment/" + name, …
std::string state_name(ParameterPart part, const std::string& name);

// One update of all trainable parameters; see ops/adam for the formula.
struct OptimizerStep {
  std::int64_t updates = 1;  // counting this one
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double learning_rate = 0;  // times each parameter's scale
  double decay = 0;          // times each parameter's scale
  double gradient_scale = 1;
  double average_decay = 0;
};

class ParameterStore final : public Parameters {
 public:
  // `type` is what layers compute in: that of packed weights, and of activations where the device has them in it, which
  // are float32 otherwise. `average`: also keeps an exponential moving average of the weights. Throws
  // ERR_SIGLIP_OUT_OF_MEMORY before anything is allocated when the parameters cannot fit.
  ParameterStore(Device& device, DType type, std::vector<ParameterSetting> settings, ParameterSource source,
                 bool average, int threads, std::shared_ptr<const CancelToken> cancel);

  VectorWeights vector(const std::string& name, std::initializer_list<std::int64_t> shape) override;
  LinearWeights stacked_linear(const std::string& prefix, std::initializer_list<const char*> names,
                               std::int64_t out_features, std::int64_t in_features) override;
  LinearWeights patch_convolution(const std::string& name, std::int64_t width, int patch) override;
  PoolingWeights pooling(const std::string& name, std::int64_t width, int heads) override;
  TokenTable token_table(const std::string& name, std::int64_t vocabulary, std::int64_t width) override;
  void check_files() const override {}
  DType activation_type() const override { return activation_type_; }
  std::size_t bytes() const override { return bytes_.values + bytes_.packed; }

  struct Bytes {
    std::size_t values = 0;
    std::size_t gradients = 0;
    std::size_t optimizer = 0;  // moments and averages
    std::size_t packed = 0;
  };
  // What is allocated, and what the token table's gradient may need more for a batch of this many tokens.
  Bytes memory(std::int64_t tokens) const;

  // Throws ERR_SIGLIP_CHECKPOINT naming a parameter that no tower has asked for.
  void check_complete() const;

  // Gradients become 0. `ids` are all token ids of the coming batch; returns the row of the token table's gradient
  // for each of them (empty when the table is frozen).
  std::vector<std::int32_t> start_gradients(const std::vector<std::int32_t>& ids);
  // For the plan of a batch of this many tokens, all different: rows as start_gradients returns them, of a gradient
  // without memory, as long as the object lives.
  class PlannedGradients {
   public:
    PlannedGradients(ParameterStore& store, std::size_t tokens);
    ~PlannedGradients() { store_.token_gradient_ = kept_; }
    PlannedGradients(const PlannedGradients&) = delete;
    PlannedGradients& operator=(const PlannedGradients&) = delete;
    const std::vector<std::int32_t>& slots() const { return slots_; }

   private:
    ParameterStore& store_;
    TokenTable::SparseGradient kept_;
    std::vector<std::int32_t> slots_;
  };
  // Σ of the squares of all gradients of trainable parameters.
  double squared_gradient_norm();
  // Updates the trainable parameters and everything that is derived from them.
  void update(const OptimizerStep& step);
  // Packs weights again, after their values have changed.
  void refresh();

  float read_scalar(const std::string& name);
  void add_to_gradient(const std::string& name, double value);

  // A parameter's part in Hugging Face's layout, in host memory, as many values as its shape says. Parts that are not
  // kept (gradients and moments of frozen parameters) read as 0; averages as the values.
  void read(const std::string& name, ParameterPart part, float* host);
  std::int64_t elements(const std::string& name) const;
  // For each row of the token table, whether it has ever had a gradient. Empty when the table is frozen.
  const std::vector<std::uint8_t>& touched_rows() const { return touched_; }

 private:
  // A range of a block: one named parameter.
  struct Entry {
    const ParameterSetting* setting;
    std::size_t block;
    std::int64_t offset;
    std::int64_t count;
    int patch;  // > 0: stored as the linear form of a convolution with this patch size
  };
  struct Block {
    DeviceBuffer values;
    DeviceBuffer gradient;
    DeviceBuffer first_moment;
    DeviceBuffer second_moment;
    DeviceBuffer average;
    std::int64_t count = 0;
  };
  struct PackJob {
    std::vector<ConstMatrixView> parts;
    void* packed;
    void* transposed;  // null: no gradient passes here
  };

  const ParameterSetting& setting(const std::string& name) const;
  bool trains(const std::string& stem) const;
  DeviceBuffer allocate(std::size_t bytes, std::size_t& counter);
  // A block of the named parameters, filled with their values. `sparse`: without memory for a dense gradient.
  Block& declare(const std::vector<std::string>& names, const std::vector<std::vector<std::int64_t>>& shapes,
                 bool gradient, int patch = 0, bool sparse = false);
  void fill(const Entry& entry, ParameterPart part, float* device_values);
  LinearWeights pack(std::vector<ConstMatrixView> parts, bool trainable_tower);
  float* part_memory(const Entry& entry, ParameterPart part);
  void require_memory() const;

  Device& device_;
  DType weight_type_;
  DType activation_type_;
  std::vector<ParameterSetting> settings_;
  std::unordered_map<std::string, std::size_t> setting_index_;
  ParameterSource source_;
  bool average_;
  std::shared_ptr<const CancelToken> cancel_;
  OpContext context_;
  std::vector<std::unique_ptr<Block>> blocks_;
  std::vector<Entry> entries_;
  std::unordered_map<std::string, std::size_t> entry_index_;
  std::vector<PackJob> pack_jobs_;
  std::vector<ProbeKeysArgs> probe_jobs_;
  std::vector<DeviceBuffer> derived_;
  Bytes bytes_;

  // The token table, whose gradient is sparse.
  std::string token_table_name_;
  std::int64_t token_width_ = 0;
  TokenTable::SparseGradient token_gradient_;
  DeviceBuffer token_gradient_rows_;
  std::vector<std::int32_t> token_rows_;  // gradient row, AdamArgs::kZeroGradient or kUntouched for each id
  std::vector<std::int32_t> token_ids_;   // the id of each gradient row
  std::vector<std::uint8_t> touched_;
};

}  // namespace siglip2
