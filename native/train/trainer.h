// One training step of an image-text pair of towers with the sigmoid loss: gradients of a batch, then an update.
//
// A batch that does not fit at once goes through the towers a micro-batch at a time: first all embeddings, then the
// loss over all pairs, then each micro-batch's forward and backward pass with its share of the embeddings' gradients
// (GradCache, arXiv 2101.06983). The gradients are those of the whole batch. With n images and m texts, n / s parts of
// s images are as many parts of ⌈m · s / n⌉ texts, or fewer.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backend/cancel.h"
#include "backend/device.h"
#include "nn/text_tower.h"
#include "nn/vision_tower.h"
#include "train/parameter_store.h"

namespace siglip2 {

struct TrainingBatch {
  VisionInput images;
  std::vector<std::int32_t> ids;  // [texts, length]
  std::int64_t length = 0;
  // Which texts belong to which images; without, as many texts as images, and text i to image i.
  std::optional<PositiveLists> positives;
};

// Lists in which every text belongs to one image: what stands for any in a plan of a batch.
PositiveLists one_image_for_each_text(std::int64_t images, std::int64_t texts);

// How a batch is computed; the results are the same up to rounding.
struct GradientPlan {
  std::int64_t micro_batch = 0;  // images that go through the towers together; 0: all
  bool checkpointing = false;    // keep only the blocks' inputs for the backward pass
};

struct GradientResult {
  double loss = 0;
  double gradient_norm = 0;  // over all trainable parameters
  std::size_t activation_bytes = 0;
};

struct UpdateRequest {
  OptimizerStep optimizer;  // gradient_scale is set here
  double clip_norm = 0;     // > 0: gradients are scaled down to this global norm
};

struct StepResult {
  GradientResult gradients;
  bool updated = false;  // false: loss or gradients were not finite, and nothing has changed
  double logit_scale = 0;
  double logit_bias = 0;
};

class Trainer {
 public:
  // Builds both towers on the store. Runs on the device's executor thread, as everything here. Throws
  // ERR_SIGLIP_CONFIG when the towers' features have different widths or the image tower has no head.
  Trainer(Device& device, const VisionConfig& vision, const TextConfig& text, std::shared_ptr<ParameterStore> store,
          int threads);

  // Leaves the gradients of the loss in the store. Throws ERR_SIGLIP_SHAPE for a batch that is empty, does not fit the
  // model, has lists that do not fit it, or without lists as many texts as images not, and what Pass::run throws.
  GradientResult gradients(const TrainingBatch& batch, const GradientPlan& plan, const CancelToken& cancel);
  // Gradients, clipping, update. When it throws, no parameter has changed.
  StepResult step(const TrainingBatch& batch, const GradientPlan& plan, const UpdateRequest& update,
                  const CancelToken& cancel);
  // Bytes of activations that a batch would need. The values of its pixels are not looked at and may be missing.
  std::size_t plan(const TrainingBatch& batch, const GradientPlan& plan);

  ParameterStore& store() { return *store_; }
  const std::shared_ptr<const VisionTower>& vision() const { return vision_; }
  const std::shared_ptr<const TextTower>& text() const { return text_; }

 private:
  struct Work;
  Work check(const TrainingBatch& batch, const GradientPlan& plan) const;
  void run(Pass& pass, const Work& work, SigmoidLossResult& loss) const;
  void embed(Pass& pass, const Work& work, const MatrixView& images, const MatrixView& texts) const;
  void normalize_and_compare(Pass& pass, const Work& work, const MatrixView& images, const MatrixView& texts,
                             SigmoidLossResult& loss) const;

  Device& device_;
  int threads_;
  std::shared_ptr<ParameterStore> store_;
  std::shared_ptr<const VisionTower> vision_;
  std::shared_ptr<const TextTower> text_;
};

}  // namespace siglip2
