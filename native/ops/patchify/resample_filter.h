// The filters of a resize: which source positions an output position draws on, and with which weights. Computed once on
// the host, in double precision with Pillow's order of operations; every device's kernels start from here and bring the
// weights into the form they multiply with.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/patchify/patchify.h"

namespace siglip2 {

// Pillow's fixed-point weights have this many bits after the point.
inline constexpr int kWeightBits = 22;

// Source positions [begin, end).
struct SourceRange {
  std::int64_t begin;
  std::int64_t end;
};

// One axis of a resize.
class ResampleFilter {
 public:
  ResampleFilter(std::int64_t source, std::int64_t target, ResizeFilter filter);

  // Neither end decreases from one output position to the next.
  SourceRange range(std::int64_t position) const;
  // The weights of range(position), which sum to 1.
  void fill_weights(std::int64_t position, double* weights) const;

 private:
  bool unchanged() const { return source_ == target_; }
  double center(std::int64_t position) const { return (static_cast<double>(position) + 0.5) * scale_; }

  std::int64_t source_;
  std::int64_t target_;
  ResizeFilter filter_;
  double scale_;
  double stretch_;
  double support_;
};

// Pillow's fixed-point weight: below 2^23 in magnitude.
std::int32_t to_fixed(double weight);

// Whether Pillow filters image `index` vertically first: since version 12.3, Image.resize does so with very tall
// images.
bool is_vertical_first(const PatchifyImagesArgs& args, std::int64_t index);

// The vertical pass of such an image, in Pillow's arithmetic: an image of as many columns and channels, `height` high.
// Such images are rare, so this is plain and the same for all devices.
class VerticalFirst {
 public:
  VerticalFirst(const ImageView& image, std::int64_t height, ResizeFilter filter);

  // Allocates nothing, so that rows can be made by many threads.
  void make_row(std::int64_t row, std::uint8_t* out) const;

  std::int64_t height() const { return static_cast<std::int64_t>(rows_.size()); }
  std::int64_t row_bytes() const { return image_.width * image_.channels; }

 private:
  struct Row {
    SourceRange range;
    std::int64_t weights;  // index of its first weight
  };

  ImageView image_;
  std::vector<Row> rows_;
  std::vector<std::int32_t> weights_;
};

// normalized[c][u]: the value of byte u in channel c, rounded once from double.
void fill_normalized(const PatchifyImagesArgs& args, float (*normalized)[256]);

}  // namespace siglip2
