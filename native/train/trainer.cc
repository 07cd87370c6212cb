#include "train/trainer.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tensor/error.h"

namespace siglip2 {
namespace {

// Rows of images or of texts.
struct Part {
  std::int64_t first;
  std::int64_t count;
};

Part part_of(std::int64_t index, std::int64_t size, std::int64_t total) {
  const std::int64_t first = std::min(index * size, total);
  return {first, std::min(size, total - first)};
}

}  // namespace

PositiveLists one_image_for_each_text(std::int64_t images, std::int64_t texts) {
  PositiveLists lists;
  lists.texts.resize(static_cast<std::size_t>(texts));
  std::iota(lists.texts.begin(), lists.texts.end(), 0);
  for (std::int64_t i = 0; i <= images; ++i)
    lists.offsets.push_back(static_cast<std::int32_t>(i * texts / std::max<std::int64_t>(images, 1)));
  return lists;
}

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
  PositivePairs positives;
  std::int64_t image_count;
  std::int64_t text_count;
  std::int64_t micro_images;
  std::int64_t micro_texts;
  bool checkpointing;
  double logit_scale = 0;
  double logit_bias = 0;

  std::int64_t micro_batches() const { return (image_count + micro_images - 1) / micro_images; }
  Part images_of(std::int64_t micro_batch) const { return part_of(micro_batch, micro_images, image_count); }
  // Empty of the last ones, where texts are few.
  Part texts_of(std::int64_t micro_batch) const { return part_of(micro_batch, micro_texts, text_count); }

  VisionBatch images(const Part& part) const { return {batch.images, spatial_shapes, part.first, part.count}; }
  TextBatch texts(const Part& part) const {
    const std::int64_t start = part.first * batch.length;
    return {batch.ids.data() + start, slots.empty() ? nullptr : slots.data() + start, part.count, batch.length};
  }
};

Trainer::Work Trainer::check(const TrainingBatch& batch, const GradientPlan& plan) const {
  text_->check(static_cast<std::int64_t>(batch.ids.size()), batch.length);
  Work work{batch, vision_->spatial_shapes(batch.images), {}, {}, 0, 0, 0, 0, plan.checkpointing};
  work.image_count = static_cast<std::int64_t>(work.spatial_shapes.size() / 2);
  work.text_count = static_cast<std::int64_t>(batch.ids.size()) / batch.length;
  if (!batch.positives && work.image_count != work.text_count)
    throw Error(kErrorShape, "batch: expected as many texts as images, got " + std::to_string(work.image_count) +
                                 " images and " + std::to_string(work.text_count) + " texts");
  if (work.image_count == 0 || work.text_count == 0)
    throw Error(kErrorShape, "batch: expected at least one image and one text, got " +
                                 std::to_string(work.image_count) + " and " + std::to_string(work.text_count));
  if (batch.positives) {
    work.positives = batch.positives->pairs("batch", work.image_count);
    check_positive_pairs("batch", work.positives, work.image_count, work.text_count);
  }
  work.micro_images = plan.micro_batch <= 0 ? work.image_count : std::min(plan.micro_batch, work.image_count);
  work.micro_texts = (work.text_count * work.micro_images + work.image_count - 1) / work.image_count;
  return work;
}

void Trainer::embed(Pass& pass, const Work& work, const MatrixView& images, const MatrixView& texts) const {
  for (std::int64_t index = 0; index < work.micro_batches(); ++index) {
    const Part image_part = work.images_of(index), text_part = work.texts_of(index);
    vision_->forward(pass, work.images(image_part), images.slice_rows(image_part.first, image_part.count));
    if (text_part.count == 0) continue;
    text_->forward(pass, work.texts(text_part), texts.slice_rows(text_part.first, text_part.count));
  }
}

// Turns features into the gradients of the loss with respect to them.
void Trainer::normalize_and_compare(Pass& pass, const Work& work, const MatrixView& images, const MatrixView& texts,
                                    SigmoidLossResult& loss) const {
  const Arena::Scope scope = pass.scope();
  const std::int64_t n = images.rows, m = texts.rows, width = images.columns;
  const MatrixView unit_images = pass.allocate(n, width);
  const MatrixView unit_texts = pass.allocate(m, width);
  const MatrixView grad_images = pass.allocate_float(n, width);
  const MatrixView grad_texts = pass.allocate_float(m, width);
  pass.l2_normalize({images, unit_images});
  pass.l2_normalize({texts, unit_texts});
  {
    const Arena::Scope workspace_scope = pass.scope();
    const MatrixView workspace = pass.allocate_float(sigmoid_loss_workspace_rows(n, m), m);
    // Lists differ from batch to batch.
    if (work.positives.offsets != nullptr) pass.divide();
    pass.sigmoid_loss({unit_images, unit_texts, work.positives, work.logit_scale, work.logit_bias, grad_images,
                       grad_texts, workspace, &loss});
  }
  pass.l2_normalize_backward({images, grad_images, grad_images});
  pass.l2_normalize_backward({texts, grad_texts, grad_texts});
  pass.copy(images, grad_images);
  pass.copy(texts, grad_texts);
}

void Trainer::run(Pass& pass, const Work& work, SigmoidLossResult& loss) const {
  const Arena::Scope scope = pass.scope();
  const std::int64_t n = work.image_count, m = work.text_count, width = vision_->config().encoder.width;
  const bool train_vision = vision_->trainable(), train_text = text_->trainable();
  // Features, and then the gradients of the loss with respect to them.
  const MatrixView images = pass.allocate(n, width);
  const MatrixView texts = pass.allocate(m, width);
  const auto keeping = [&](auto kept) {
    kept.encoder.checkpointing = work.checkpointing;
    return kept;
  };

  if (work.micro_images == n) {
    VisionTower::Activations kept_images = keeping(VisionTower::Activations{});
    TextTower::Activations kept_texts = keeping(TextTower::Activations{});
    const VisionBatch image_batch = work.images({0, n});
    const TextBatch text_batch = work.texts({0, m});
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
  for (std::int64_t index = 0; index < work.micro_batches(); ++index) {
    const Part image_part = work.images_of(index), text_part = work.texts_of(index);
    if (train_vision) {
      const Arena::Scope micro_scope = pass.scope();
      VisionTower::Activations kept = keeping(VisionTower::Activations{});
      const VisionBatch batch = work.images(image_part);
      vision_->forward(pass, batch, pass.allocate(image_part.count, width), kept);
      vision_->backward(pass, batch, kept, images.slice_rows(image_part.first, image_part.count));
    }
    if (train_text && text_part.count > 0) {
      const Arena::Scope micro_scope = pass.scope();
      TextTower::Activations kept = keeping(TextTower::Activations{});
      const TextBatch batch = work.texts(text_part);
      text_->forward(pass, batch, pass.allocate(text_part.count, width), kept);
      text_->backward(pass, batch, kept, texts.slice_rows(text_part.first, text_part.count));
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
