#include "train/trainer.h"

#include <algorithm>
#include <cmath>

#include "tensor/error.h"

namespace siglip2 {

Trainer::Trainer(Device& device, const VisionConfig& vision, const TextConfig& text,
                 std::shared_ptr<ParameterStore> store, int threads)
    : device_(device), threads_(threads), store_(std::move(store)) {
  if (!vision.has_head)
    throw Error(kErrorConfig,
                "the image tower has no pooling head (vision_use_head is false), so there is nothing to "
                "compare with texts");
  if (vision.encoder.width != text.projection)
    throw Error(kErrorConfig, "images are embedded in " + std::to_string(vision.encoder.width) +
                                  " dimensions and texts in " + std::to_string(text.projection) +
                                  "; training compares them, so they must be the same");
  store_->vector("logit_scale", {1});
  store_->vector("logit_bias", {1});
  vision_ = std::make_shared<const VisionTower>(vision, store_);
  text_ = std::make_shared<const TextTower>(text, store_);
  store_->check_complete();
  store_->refresh();
}

// A checked batch and where it is cut.
struct Trainer::Work {
  const TrainingBatch& batch;
  std::vector<std::int32_t> spatial_shapes;
  std::vector<std::int32_t> slots;
  std::int64_t examples;
  std::int64_t micro_batch;
  bool checkpointing;
  double logit_scale = 0;
  double logit_bias = 0;

  VisionBatch images(std::int64_t first, std::int64_t count) const {
    return {batch.images, spatial_shapes, first, count};
  }
  TextBatch texts(std::int64_t first, std::int64_t count) const {
    const std::int64_t start = first * batch.length;
    return {batch.ids.data() + start, slots.empty() ? nullptr : slots.data() + start, count, batch.length};
  }
};

Trainer::Work Trainer::check(const TrainingBatch& batch, const GradientPlan& plan) const {
  text_->check(static_cast<std::int64_t>(batch.ids.size()), batch.length);
  Work work{batch, vision_->spatial_shapes(batch.images), {}, 0, 0, plan.checkpointing};
  work.examples = static_cast<std::int64_t>(work.spatial_shapes.size() / 2);
  const std::int64_t texts = static_cast<std::int64_t>(batch.ids.size()) / batch.length;
  if (work.examples != texts)
    throw Error(kErrorShape, "batch: expected as many texts as images, got " + std::to_string(work.examples) +
                                 " images and " + std::to_string(texts) + " texts");
  if (work.examples == 0) throw Error(kErrorShape, "batch: expected at least one image and its text, got none");
  work.micro_batch = plan.micro_batch <= 0 ? work.examples : std::min(plan.micro_batch, work.examples);
  return work;
}

void Trainer::embed(Pass& pass, const Work& work, const MatrixView& images, const MatrixView& texts) const {
  for (std::int64_t first = 0; first < work.examples; first += work.micro_batch) {
    const std::int64_t count = std::min(work.micro_batch, work.examples - first);
    vision_->forward(pass, work.images(first, count), images.slice_rows(first, count));
    text_->forward(pass, work.texts(first, count), texts.slice_rows(first, count));
  }
}

// Turns features into the gradients of the loss with respect to them.
void Trainer::normalize_and_compare(Pass& pass, const Work& work, const MatrixView& images, const MatrixView& texts,
                                    SigmoidLossResult& loss) const {
  const Arena::Scope scope = pass.scope();
  const std::int64_t n = images.rows, width = images.columns;
  const MatrixView unit_images = pass.allocate(n, width);
  const MatrixView unit_texts = pass.allocate(n, width);
  const MatrixView grad_images = pass.allocate_float(n, width);
  const MatrixView grad_texts = pass.allocate_float(n, width);
  pass.l2_normalize({images, unit_images});
  pass.l2_normalize({texts, unit_texts});
  {
    const Arena::Scope workspace_scope = pass.scope();
    const MatrixView workspace = pass.allocate_float(sigmoid_loss_workspace_rows(n), n);
    pass.sigmoid_loss(
        {unit_images, unit_texts, work.logit_scale, work.logit_bias, grad_images, grad_texts, workspace, &loss});
  }
  pass.l2_normalize_backward({images, grad_images, grad_images});
  pass.l2_normalize_backward({texts, grad_texts, grad_texts});
  pass.copy(images, grad_images);
  pass.copy(texts, grad_texts);
}

void Trainer::run(Pass& pass, const Work& work, SigmoidLossResult& loss) const {
  const Arena::Scope scope = pass.scope();
  const std::int64_t n = work.examples, width = vision_->config().encoder.width;
  const bool train_vision = vision_->trainable(), train_text = text_->trainable();
  // Features, and then the gradients of the loss with respect to them.
  const MatrixView images = pass.allocate(n, width);
  const MatrixView texts = pass.allocate(n, width);
  const auto keeping = [&](auto kept) {
    kept.encoder.checkpointing = work.checkpointing;
    return kept;
  };

  if (work.micro_batch == n) {
    VisionTower::Activations kept_images = keeping(VisionTower::Activations{});
    TextTower::Activations kept_texts = keeping(TextTower::Activations{});
    const VisionBatch image_batch = work.images(0, n);
    const TextBatch text_batch = work.texts(0, n);
    train_vision ? vision_->forward(pass, image_batch, images, kept_images)
                 : vision_->forward(pass, image_batch, images);
    train_text ? text_->forward(pass, text_batch, texts, kept_texts) : text_->forward(pass, text_batch, texts);
    normalize_and_compare(pass, work, images, texts, loss);
    if (train_text) text_->backward(pass, text_batch, kept_texts, texts);
    if (train_vision) vision_->backward(pass, image_batch, kept_images, images);
    return;
  }

  embed(pass, work, images, texts);
  normalize_and_compare(pass, work, images, texts, loss);
  for (std::int64_t first = 0; first < n; first += work.micro_batch) {
    const std::int64_t count = std::min(work.micro_batch, n - first);
    if (train_vision) {
      const Arena::Scope micro_scope = pass.scope();
      VisionTower::Activations kept = keeping(VisionTower::Activations{});
      const VisionBatch batch = work.images(first, count);
      vision_->forward(pass, batch, pass.allocate(count, width), kept);
      vision_->backward(pass, batch, kept, images.slice_rows(first, count));
    }
    if (train_text) {
      const Arena::Scope micro_scope = pass.scope();
      TextTower::Activations kept = keeping(TextTower::Activations{});
      const TextBatch batch = work.texts(first, count);
      text_->forward(pass, batch, pass.allocate(count, width), kept);
      text_->backward(pass, batch, kept, texts.slice_rows(first, count));
    }
  }
}

GradientResult Trainer::gradients(const TrainingBatch& batch, const GradientPlan& plan, const CancelToken& cancel) {
  Work work = check(batch, plan);
  work.slots = store_->start_gradients(batch.ids);
  work.logit_scale = store_->read_scalar("logit_scale");
  work.logit_bias = store_->read_scalar("logit_bias");
  SigmoidLossResult loss;
  Pass::run(device_, store_->activation_type(), threads_, cancel, [&](Pass& pass) {
    pass.set_training();
    run(pass, work, loss);
  });
  store_->add_to_gradient("logit_scale", loss.grad_logit_scale);
  store_->add_to_gradient("logit_bias", loss.grad_logit_bias);
  return {loss.loss, std::sqrt(store_->squared_gradient_norm()), device_.planned_bytes()};
}

StepResult Trainer::step(const TrainingBatch& batch, const GradientPlan& plan, const UpdateRequest& update,
                         const CancelToken& cancel) {
  StepResult result;
  result.gradients = gradients(batch, plan, cancel);
  const double norm = result.gradients.gradient_norm;
  if (std::isfinite(result.gradients.loss) && std::isfinite(norm)) {
    OptimizerStep optimizer = update.optimizer;
    optimizer.gradient_scale = update.clip_norm > 0 && norm > update.clip_norm ? update.clip_norm / norm : 1.0;
    store_->update(optimizer);
    result.updated = true;
  }
  result.logit_scale = store_->read_scalar("logit_scale");
  result.logit_bias = store_->read_scalar("logit_bias");
  return result;
}

std::size_t Trainer::plan(const TrainingBatch& batch, const GradientPlan& plan) {
  Work work = check(batch, plan);
  const ParameterStore::PlannedGradients gradients(*store_, batch.ids.size());
  work.slots = gradients.slots();
  SigmoidLossResult loss;
  return Pass::plan(device_, store_->activation_type(), [&](Pass& pass) {
    pass.set_training();
    run(pass, work, loss);
  });
}

}  // namespace siglip2
