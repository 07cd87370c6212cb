// Filter weights and the work list of one `patchify_images` call on CPUs: everything that is computed once, before the
// pixels are touched. Compiled once (not per instruction set); the kernels read plain pointers.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/patchify/patchify.h"
#include "ops/patchify/resample_filter.h"

namespace siglip2 {

// Fixed-point weights have 22 bits after the point. Kernels multiply 16-bit and 8-bit numbers, so a weight w
// is kept as high · 2^16 + low with −2^15 ≤ low < 2^15. Weights come in pairs, for source positions 2i and 2i + 1,
// because the multiply-add instructions of small numbers sum neighbours; the high parts stand there twice to fill 32
// bits.
inline constexpr int kWeightLowBits = 16;

struct PairWeight {
  std::int16_t low[2];
  std::int8_t high[4];
};

// The source positions of one output position: pairs [first_pair, first_pair + pairs), with weights from index
// `weights` of the axis on. Pairs that stick out of the filter are padded with weights of zero, on the right possibly
// one position beyond the source.
struct ResampleTaps {
  std::int64_t first_pair;
  std::int64_t pairs;
  std::int64_t weights;
};

// One axis of a resize. `first_pair` and `first_pair + pairs` never decrease from one output position to the next.
struct ResampleAxis {
  std::int64_t source = 0;             // size before
  std::int64_t outputs = 0;            // positions computed: the size after, less what fills no patch
  std::int64_t longest = 0;            // most pairs of one position
  const ResampleTaps* taps = nullptr;  // [outputs]
  const PairWeight* fixed = nullptr;   // kPil
  const float* real = nullptr;         // kFloat: two weights for each pair
};

struct ImagePlan {
  ImageView source;  // of args.images, or made from it where Pillow filters vertically first
  const ResampleAxis* horizontal;
  const ResampleAxis* vertical;
  std::int64_t output_row;  // the image's first row of the output
};

// Output rows [begin, end) of one image: what one thread does at a time.
struct PatchifyStrip {
  std::int64_t image;
  std::int64_t begin;
  std::int64_t end;
};

// Owns the memory that its pointers show. Axes of equal sizes are computed once.
class PatchifyPlan {
 public:
  PatchifyPlan(const PatchifyImagesArgs& args, int threads);
  ~PatchifyPlan();
  PatchifyPlan(const PatchifyPlan&) = delete;
  PatchifyPlan& operator=(const PatchifyPlan&) = delete;

  const ImagePlan* images = nullptr;  // [args.count]
  const PatchifyStrip* strips = nullptr;
  std::int64_t strip_count = 0;
  const float* normalized = nullptr;  // [3, 256]: the value of byte u in channel c, rounded once from double

 private:
  struct Storage;
  Storage* storage_;
};

}  // namespace siglip2
