#include "ops/sigmoid_loss/sigmoid_loss.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "tensor/shape_check.h"

namespace siglip2 {
namespace {

constexpr std::int64_t kWorkspaceBytes = std::int64_t{32} << 20;
// Of few texts these bytes would hold any number of images. A square of them has 2896 rows.
constexpr std::int64_t kMostWorkspaceRows = 4096;

// Scales and biases that are not finite, or so large that logits or gradients overflow float32.
[[noreturn]] void throw_number_error(const char* name, double value, const char* expected) {
  throw Error(kErrorUnsupported,
              std::string("sigmoid_loss: ") + name + " must be " + expected + ", got " + std::to_string(value));
}

}  // namespace

PositivePairs PositiveLists::pairs(const char* operation, std::int64_t images) const {
  check_equal(operation, "the entries of positives.offsets, one more than images,",
              static_cast<std::int64_t>(offsets.size()), images + 1);
  check_equal(operation, "the entries of positives.texts, which the last of positives.offsets counts,",
              static_cast<std::int64_t>(texts.size()), offsets.back());
  return {offsets.data(), texts.data()};
}

void check_positive_pairs(const char* operation, const PositivePairs& positives, std::int64_t images,
                          std::int64_t texts) {
  check_ascending_offsets(operation, "positives.offsets", positives.offsets, images);
  if (positives.offsets[images] > 0) check_pointer(operation, "positives.texts", positives.texts);
  for (std::int64_t i = 0; i < images; ++i) {
    for (std::int32_t at = positives.offsets[i]; at < positives.offsets[i + 1]; ++at) {
      const std::int32_t text = positives.texts[at];
      check_range(operation, ("entry " + std::to_string(at) + " of positives.texts").c_str(), text, 0, texts - 1);
      if (at == positives.offsets[i] || text > positives.texts[at - 1]) continue;
      throw_shape_error(operation, "positives.texts must ascend within an image: entry " + std::to_string(at) +
                                       ", of image " + std::to_string(i) + ", is " + std::to_string(text) + " after " +
                                       std::to_string(positives.texts[at - 1]));
    }
  }
}

std::int64_t sigmoid_loss_workspace_rows(std::int64_t images, std::int64_t texts) {
  if (images < 1 || texts < 1) return 0;
  const std::int64_t row_bytes = texts * static_cast<std::int64_t>(sizeof(float));
  const std::int64_t most = std::clamp<std::int64_t>(kWorkspaceBytes / row_bytes, 1, kMostWorkspaceRows);
  // Chunks of even height.
  const std::int64_t chunks = (images + most - 1) / most;
  return (images + chunks - 1) / chunks;
}

void sigmoid_loss(const OpTable& table, OpContext& context, const SigmoidLossArgs& args) {
  const char* const name = "sigmoid_loss";
  const DType type = check_activation_type(name, "images", args.images.dtype, table.name, table.activation_types);
  const std::int64_t n = args.images.rows, width = args.images.columns;
  if (n < 1) throw_shape_error(name, "images has no rows, and there is no loss over no pairs");
  check_at_least(name, "columns of images", width, 1);
  check_matrix(name, "images", args.images, type, n, width);
  const std::int64_t m = args.positives.offsets == nullptr ? n : args.texts.rows;
  if (m < 1) throw_shape_error(name, "texts has no rows, and there is no loss over no pairs");
  check_matrix(name, "texts", args.texts, type, m, width);
  if (args.positives.offsets != nullptr) check_positive_pairs(name, args.positives, n, m);
  check_pointer(name, "result", args.result);
  if (!std::isfinite(args.logit_scale) || args.logit_scale > kMostLogitScale) {
    throw_number_error("logit_scale", args.logit_scale, "finite and at most 80");
  }
  if (!(std::fabs(args.logit_bias) <= kMostLogitBias)) {
    throw_number_error("logit_bias", args.logit_bias, "from -1e30 to 1e30");
  }
  if ((args.grad_images.data == nullptr) != (args.grad_texts.data == nullptr)) {
    throw_shape_error(name, "grad_images and grad_texts must be given together");
  }
  if (args.grad_images.data != nullptr) {
    check_matrix(name, "grad_images", args.grad_images, DType::kFloat32, n, width);
    check_matrix(name, "grad_texts", args.grad_texts, DType::kFloat32, m, width);
    check_matrix(name, "workspace", args.workspace, DType::kFloat32, sigmoid_loss_workspace_rows(n, m), m);
    const void* const inputs[] = {args.images.data, args.texts.data};
    for (const void* const input : inputs) {
      if (input == args.grad_images.data || input == args.grad_texts.data) {
        throw_shape_error(name, "gradients must not overlap images or texts");
      }
    }
    if (args.grad_images.data == args.grad_texts.data) {
      throw_shape_error(name, "grad_images and grad_texts must not overlap");
    }
  }
  table.sigmoid_loss(context, args);
}

}  // namespace siglip2
