// The work list of one `patchify_images` call on GPUs, and the tables that its kernels read: all that is computed on
// the host. Plain structures, copied to the device as they are.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <vector>

#include "ops/patchify/patchify.h"
#include "ops/patchify/resample_filter.h"

namespace siglip2::cuda {

// Source positions are taken in groups of four, at multiples of four: four pixels of a row are whole words whatever
// the number of channels, and four rows are one word of bytes. Groups that stick out of the filter are padded with
// weights of zero.
inline constexpr int kGroup = 4;

// The source groups of one output position, [first, first + groups), with weights from index `weights` on.
struct alignas(16) PatchifyTaps {
  std::int32_t first;
  std::int32_t groups;
  std::int64_t weights;
};

// Weights of one group. kPil: a weight w is kept as high · 2^16 + middle · 2^8 + low; words 0, 1 and 2 are the four low
// (unsigned), middle (unsigned) and high (signed) bytes, word 3 is not used. kFloat: four float32.
struct alignas(16) PatchifyWeights {
  std::uint32_t words[4];
};

struct alignas(16) PatchifyImage {
  std::int64_t pixels;      // its first byte, from the kernels' `pixels` on, a multiple of 16; set by place_pixels()
  std::int64_t bytes;       // of its pixels
  std::int64_t row_bytes;   // of one row
  std::int64_t output_row;  // its first row of the output
  std::int32_t width;
  std::int32_t height;
  std::int32_t channels;
  std::int32_t output_width;  // positions computed: the size after, less what fills no patch
  std::int32_t output_height;
  std::int32_t horizontal;  // index of the axis' first PatchifyTaps
  std::int32_t vertical;
  std::int32_t rows_per_step;   // output rows made between two rounds of horizontal filtering
  std::int32_t ring_groups;     // groups of filtered rows that the ring holds: enough for any step
  std::int32_t staged_groups;   // groups of source rows that are staged at a time
  std::int32_t staged_vectors;  // 16-byte vectors of one staged row
};

// Columns [first_column, first_column + columns) of rows [first_row, first_row + rows) of an image: the work of a
// block.
struct PatchifyJob {
  std::int32_t image;
  std::int32_t first_column;
  std::int32_t columns;
  std::int32_t first_row;
  std::int32_t rows;
};

// Floats of the normalization, at the start of shared memory.
inline constexpr int kNormalizationFloats = 3 * 256;

class PatchifyJobs {
 public:
  // Computes all sizes, but no weights and no pixels.
  explicit PatchifyJobs(const PatchifyImagesArgs& args);

  // Computes `weights`, `normalization` and the pixels of images that are filtered vertically first.
  void fill();

  std::vector<PatchifyImage> images;
  std::vector<PatchifyJob> strips;      // for the kernel that filters through shared memory
  std::vector<PatchifyJob> far_pixels;  // for the one whose filters do not fit there
  std::vector<PatchifyTaps> taps;
  std::vector<PatchifyWeights> weights;
  // kPil: [3, 256], the value of each byte. kFloat: value · normalization[c] + normalization[3 + c].
  std::vector<float> normalization = std::vector<float>(kNormalizationFloats);
  std::vector<const std::uint8_t*> pixels;  // of each image, where args has them or in host memory; valid after fill()
  std::int64_t shared_bytes = 0;            // of a block of `strips`

 private:
  struct Axis {
    ResampleFilter filter;
    std::int64_t first_taps;
    std::int64_t outputs;
  };
  struct AxisKey {
    std::int64_t source;
    std::int64_t target;
    std::int64_t outputs;
    auto operator<=>(const AxisKey&) const = default;
  };
  struct FilteredImage {
    VerticalFirst pass;
    std::size_t image;
    std::vector<std::uint8_t> pixels;
  };

  std::int32_t add_axis(const AxisKey& key);
  void add_jobs(std::int32_t index);
  bool fits(PatchifyImage& image, std::int32_t tile, std::int32_t rows, std::int32_t staged_groups) const;

  const PatchifyImagesArgs& args_;
  std::map<AxisKey, std::int32_t> index_;
  std::vector<Axis> axes_;
  std::deque<FilteredImage> filtered_;
};

// Bytes of shared memory that a block of `strips` needs for `columns` columns of `image`.
std::int64_t patchify_shared_bytes(const PatchifyImage& image, std::int64_t columns, ResizeMode mode);

}  // namespace siglip2::cuda
