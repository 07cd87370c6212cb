// The oracle: one pair after the other, everything in double precision.
#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/sigmoid_loss/sigmoid_loss.h"

namespace siglip2 {
namespace {

double sigmoid(double x) {
  // e^−|x| never overflows.
  const double decay = std::exp(-std::fabs(x));
  return (x >= 0 ? 1.0 : decay) / (1.0 + decay);
}

double softplus(double x) {
  return std::max(x, 0.0) + std::log1p(std::exp(-std::fabs(x)));
}

bool belongs(const PositivePairs& positives, std::int64_t image, std::int64_t text) {
  if (positives.offsets == nullptr) return image == text;
  return std::find(positives.texts + positives.offsets[image], positives.texts + positives.offsets[image + 1], text) !=
         positives.texts + positives.offsets[image + 1];
}

void write_gradient(const std::vector<double>& sums, double factor, const MatrixView& gradient) {
  for (std::int64_t i = 0; i < gradient.rows; ++i) {
    for (std::int64_t k = 0; k < gradient.columns; ++k) {
      const auto at = static_cast<std::size_t>(i * gradient.columns + k);
      gradient.as<float>()[i * gradient.stride + k] = static_cast<float>(factor * sums[at]);
    }
  }
}

}  // namespace

void sigmoid_loss_reference(OpContext& context, const SigmoidLossArgs& args) {
  const std::int64_t n = args.images.rows, m = args.texts.rows, width = args.images.columns;
  const double scale = std::exp(args.logit_scale);
  const bool gradients = args.grad_images.data != nullptr;
  std::vector<double> image_sums(static_cast<std::size_t>(gradients ? n * width : 0));
  std::vector<double> text_sums(static_cast<std::size_t>(gradients ? m * width : 0));
  SigmoidLossResult total;
  for (std::int64_t i = 0; i < n; ++i) {
    const float* const image = args.images.as<float>() + i * args.images.stride;
    for (std::int64_t j = 0; j < m; ++j) {
      const float* const text = args.texts.as<float>() + j * args.texts.stride;
      double product = 0;
      for (std::int64_t k = 0; k < width; ++k)
        product += static_cast<double>(image[k]) * text[k];
      const double logit = scale * product + args.logit_bias;
      const bool positive = belongs(args.positives, i, j);
      total.loss += softplus(positive ? -logit : logit);
      if (!gradients) continue;
      // σ(l) − 1 = −σ(−l), which keeps its digits where σ(l) is close to 1.
      const double slope = positive ? -sigmoid(-logit) : sigmoid(logit);
      total.grad_logit_scale += slope * scale * product;
      total.grad_logit_bias += slope;
      for (std::int64_t k = 0; k < width; ++k) {
        image_sums[static_cast<std::size_t>(i * width + k)] += slope * text[k];
        text_sums[static_cast<std::size_t>(j * width + k)] += slope * image[k];
      }
    }
  }
  const double count = static_cast<double>(n);
  *args.result = {total.loss / count, total.grad_logit_scale / count, total.grad_logit_bias / count};
  if (!gradients) return;
  write_gradient(image_sums, scale / count, args.grad_images);
  write_gradient(text_sums, scale / count, args.grad_texts);
}

}  // namespace siglip2
