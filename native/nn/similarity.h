// Image-text similarity: logits = exp(logit_scale) · cosine(image, text) + logit_bias, probability = σ(logit).
#pragma once

#include <cstdint>

namespace siglip2 {

// images [image_count, width], texts [text_count, width], not necessarily normalised; logits and probabilities
// [image_count, text_count], overwritten. Accumulated in double precision. The cosine with a row of zeros is 0.
void similarity(const float* images, std::int64_t image_count, const float* texts, std::int64_t text_count,
                std::int64_t width, double logit_scale, double logit_bias, float* logits, float* probabilities);

}  // namespace siglip2
