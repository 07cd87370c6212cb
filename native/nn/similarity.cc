#include "nn/similarity.h"

#include <cmath>
#include <vector>

namespace siglip2 {
namespace {

double dot(const float* a, const float* b, std::int64_t width) {
  // Four sums, so that additions do not wait for each other.
  double sum[4] = {0, 0, 0, 0};
  std::int64_t i = 0;
  for (; i + 4 <= width; i += 4)
    for (int k = 0; k < 4; ++k)
      sum[k] += static_cast<double>(a[i + k]) * b[i + k];
  for (; i < width; ++i)
    sum[0] += static_cast<double>(a[i]) * b[i];
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

std::vector<double> inverse_norms(const float* rows, std::int64_t count, std::int64_t width) {
  std::vector<double> inverse(static_cast<std::size_t>(count));
  for (std::int64_t row = 0; row < count; ++row) {
    const double square = dot(rows + row * width, rows + row * width, width);
    inverse[static_cast<std::size_t>(row)] = square == 0 ? 0 : 1 / std::sqrt(square);
  }
  return inverse;
}

}  // namespace

void similarity(const float* images, std::int64_t image_count, const float* texts, std::int64_t text_count,
                std::int64_t width, double logit_scale, double logit_bias, float* logits, float* probabilities) {
  const std::vector<double> image_inverse = inverse_norms(images, image_count, width);
  const std::vector<double> text_inverse = inverse_norms(texts, text_count, width);
  const double scale = std::exp(logit_scale);
  for (std::int64_t i = 0; i < image_count; ++i) {
    for (std::int64_t t = 0; t < text_count; ++t) {
      const double cosine = dot(images + i * width, texts + t * width, width) *
                            image_inverse[static_cast<std::size_t>(i)] * text_inverse[static_cast<std::size_t>(t)];
      const double logit = scale * cosine + logit_bias;
      logits[i * text_count + t] = static_cast<float>(logit);
      probabilities[i * text_count + t] = static_cast<float>(1 / (1 + std::exp(-logit)));
    }
  }
}

}  // namespace siglip2
