#include "ops/patchify/resample_filter.h"

#include <algorithm>
#include <cmath>

namespace siglip2 {
namespace {

// Pillow's filters, with its order of operations: the weights must come out equal to the last bit.
double filter_weight(ResizeFilter filter, double x) {
  x = std::fabs(x);
  if (filter == ResizeFilter::kBilinear) return x < 1.0 ? 1.0 - x : 0.0;
  constexpr double a = -0.5;
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
  if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
  return 0.0;
}

}  // namespace

ResampleFilter::ResampleFilter(std::int64_t source, std::int64_t target, ResizeFilter filter)
    : source_(source),
      target_(target),
      filter_(filter),
      scale_(static_cast<double>(source) / static_cast<double>(target)),
      stretch_(std::max(scale_, 1.0)),
      support_(stretch_ * (filter == ResizeFilter::kBilinear ? 1.0 : 2.0)) {}

SourceRange ResampleFilter::range(std::int64_t position) const {
  // Pillow skips an axis of unchanged size. One weight of 1 is the same: (p · 2^22 + 2^21) >> 22 = p.
  if (unchanged()) return {position, position + 1};
  const double middle = center(position);
  return {std::max<std::int64_t>(static_cast<std::int64_t>(middle - support_ + 0.5), 0),
          std::min(static_cast<std::int64_t>(middle + support_ + 0.5), source_)};
}

void ResampleFilter::fill_weights(std::int64_t position, double* weights) const {
  if (unchanged()) {
    weights[0] = 1.0;
    return;
  }
  const auto [begin, end] = range(position);
  const double middle = center(position);
  const double shrink = 1.0 / stretch_;
  double sum = 0.0;
  for (std::int64_t k = 0; k < end - begin; ++k) {
    weights[k] = filter_weight(filter_, (static_cast<double>(k + begin) - middle + 0.5) * shrink);
    sum += weights[k];
  }
  for (std::int64_t k = 0; k < end - begin; ++k)
    weights[k] /= sum;
}

std::int32_t to_fixed(double weight) {
  const double scaled = weight * (1 << kWeightBits);
  return static_cast<std::int32_t>(weight < 0 ? scaled - 0.5 : scaled + 0.5);  // half away from zero
}

bool is_vertical_first(const PatchifyImagesArgs& args, std::int64_t index) {
  const ImageView& image = args.images[index];
  return args.mode == ResizeMode::kPil && image.height > 100 * image.width &&
         args.target_sizes[2 * index] < image.height;
}

VerticalFirst::VerticalFirst(const ImageView& image, std::int64_t height, ResizeFilter filter) : image_(image) {
  const ResampleFilter axis(image.height, height, filter);
  std::vector<double> weights;
  for (std::int64_t row = 0; row < height; ++row) {
    const SourceRange range = axis.range(row);
    rows_.push_back({range, static_cast<std::int64_t>(weights_.size())});
    weights.resize(static_cast<std::size_t>(range.end - range.begin));
    axis.fill_weights(row, weights.data());
    for (const double weight : weights)
      weights_.push_back(to_fixed(weight));
  }
}

void VerticalFirst::make_row(std::int64_t row, std::uint8_t* out) const {
  constexpr std::int64_t block = 64;
  const auto& [range, first_weight] = rows_[static_cast<std::size_t>(row)];
  const std::int32_t* weights = weights_.data() + first_weight;
  for (std::int64_t begin = 0; begin < row_bytes(); begin += block) {
    const std::int64_t count = std::min(block, row_bytes() - begin);
    std::int32_t sum[block];
    std::fill(sum, sum + block, 1 << (kWeightBits - 1));
    for (std::int64_t source = range.begin; source < range.end; ++source) {
      const std::uint8_t* from = image_.data + source * row_bytes() + begin;
      const std::int32_t weight = weights[source - range.begin];
      for (std::int64_t i = 0; i < count; ++i)
        sum[i] += from[i] * weight;
    }
    for (std::int64_t i = 0; i < count; ++i)
      out[begin + i] = static_cast<std::uint8_t>(std::clamp(sum[i] >> kWeightBits, 0, 255));
  }
}

void fill_normalized(const PatchifyImagesArgs& args, float (*normalized)[256]) {
  for (int channel = 0; channel < 3; ++channel) {
    for (int byte = 0; byte < 256; ++byte) {
      normalized[channel][byte] =
          static_cast<float>((byte * args.rescale - args.mean[channel]) / args.deviation[channel]);
    }
  }
}

}  // namespace siglip2
