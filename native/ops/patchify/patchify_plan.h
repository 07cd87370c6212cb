// Filter weights and the work list of one `patchify_images` call on CPUs: everything that is computed once, before the
// pixels are touched. Compiled once (not per instruction set); the kernels read plain pointers.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/patchify/patchify.h"
#include "ops/patchify/resample_filter.h"

namespace siglip2 {

// Source positions are filtered a few neighbours at a time, since instructions that multiply small numbers add the
// products of neighbours. Such a unit is two positions (a pair) or four (a quad), from a multiple of its size on.
//
// Fixed-point weights have 22 bits after the point. With pairs, kernels multiply 16-bit and 8-bit numbers, so a weight
// w is kept as high · 2^16 + low with −2^15 ≤ low < 2^15; the high parts stand there twice to fill 32 bits. With quads
// they multiply 8-bit numbers: w = part 2 · 2^16 + part 1 · 2^8 + part 0 with −2^7 ≤ part < 2^7.
inline constexpr int kWeightLowBits = 16;

enum class WeightForm : std::uint8_t { kPairs, kQuads };

constexpr std::int64_t positions_of(WeightForm form) {
  return form == WeightForm::kPairs ? 2 : 4;
}

struct PairWeight {
  std::int16_t low[2];
  std::int8_t high[4];
};

struct QuadWeight {
  std::int8_t parts[3][4];
};

// The source positions of one output position: units [first, first + units), with weights from index `weights` of the
// axis on. Positions of units that stick out of the filter have weights of zero; on the right they may lie beyond the
// source.
struct ResampleTaps {
  std::int64_t first;
  std::int64_t units;
  std::int64_t weights;
};

// One axis of a resize. `first` and `first + units` never decrease from one output position to the next.
struct ResampleAxis {
  std::int64_t source = 0;             // size before
  std::int64_t outputs = 0;            // positions computed: the size after, less what fills no patch
  std::int64_t longest = 0;            // most units of one position
  const ResampleTaps* taps = nullptr;  // [outputs]
  const PairWeight* pairs = nullptr;   // kPil with pairs
  const QuadWeight* quads = nullptr;   // kPil with quads
  const float* real = nullptr;         // kFloat, whose units are pairs: two weights for each
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

// Owns the memory that its pointers show. Axes of equal sizes are computed once. `form` is that of kPil.
class PatchifyPlan {
 public:
  PatchifyPlan(const PatchifyImagesArgs& args, WeightForm form, int threads);
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
