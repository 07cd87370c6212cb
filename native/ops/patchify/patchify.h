// From pixels to patch tokens.
//
// A patch of size p is a row of 3p² values ordered row, column, channel (channel fastest), patches in row-major grid
// order, images one after the other. Rows and columns of pixels that do not fill a patch are dropped, as a strided
// convolution without padding drops them.
//
// `patchify_images` resizes decoded images, normalises and cuts them in one pass:
//   kPil    resampling in Pillow's 8-bit arithmetic, bit for bit (horizontal pass rounded to uint8, then vertical;
//           22-bit fixed-point weights, Pillow's src/libImaging/Resample.c), then value = (u·rescale − mean)/std,
//           computed in double and rounded once. As in Pillow 12.3, images more than 100 times as tall as wide whose
//           height shrinks are filtered vertically first.
//   kFloat  the same filter geometry in float32 without rounding between or after the passes, as big_vision trains
//           NaFlex models, then the same normalisation
// `patchify_pixels` cuts float images that are already normalised.
#pragma once

#include <cstdint>

#include "backend/op_table.h"
#include "tensor/matrix_view.h"

namespace siglip2 {

enum class ResizeMode : std::uint8_t { kPil, kFloat };
enum class ResizeFilter : std::uint8_t { kBilinear, kBicubic };  // Pillow's filters of these names, both antialiased
enum class PixelLayout : std::uint8_t {
  kPatches,  // output [Σ patches, 3p²]
  kPlanar,   // output [images, 3·height·width], one target size for all images
};

// Decoded 8-bit pixels, interleaved, rows without padding. One channel is grey, two grey and alpha, four colour and
// alpha; alpha is ignored.
struct ImageView {
  const std::uint8_t* data = nullptr;
  std::int64_t width = 0;
  std::int64_t height = 0;
  int channels = 3;
  // The pixels are in the device's memory, aligned to 16 bytes, not in the host's. The same on devices of the host.
  bool on_device = false;
};

struct PatchifyImagesArgs {
  const ImageView* images = nullptr;
  std::int64_t count = 0;
  const std::int32_t* target_sizes = nullptr;  // [count, 2]: height, width in pixels to resize to
  int patch_size = 16;
  double rescale = 1.0 / 255.0;
  double mean[3] = {0.5, 0.5, 0.5};
  double deviation[3] = {0.5, 0.5, 0.5};
  ResizeMode mode = ResizeMode::kPil;
  ResizeFilter filter = ResizeFilter::kBilinear;
  PixelLayout layout = PixelLayout::kPatches;
  MatrixView output;  // float32, or bfloat16 where the device computes in it; overwritten
};

struct PatchifyPixelsArgs {
  const float* pixels = nullptr;  // [images, 3, height, width] in host memory
  std::int64_t images = 0;
  std::int64_t height = 0;
  std::int64_t width = 0;
  int patch_size = 16;
  MatrixView output;  // [images · ⌊height/p⌋ · ⌊width/p⌋, 3p²]  float32 or bfloat16, overwritten
};

void patchify_images(const OpTable& table, OpContext& context, const PatchifyImagesArgs& args);
void patchify_pixels(const OpTable& table, OpContext& context, const PatchifyPixelsArgs& args);

void patchify_images_reference(OpContext& context, const PatchifyImagesArgs& args);
void patchify_pixels_reference(OpContext& context, const PatchifyPixelsArgs& args);

struct TargetSize {
  std::int32_t height;
  std::int32_t width;
};

// The NaFlex target size: the largest size of the image's aspect ratio, each side rounded up to a multiple of the
// patch, whose patches number at most `max_patches`; found by bisection of the scale in [1e-6, 100] to 1e-5 in double
// precision, step for step as Hugging Face's get_image_size_for_max_num_patches does, so that ties fall the same way.
TargetSize naflex_target_size(std::int64_t height, std::int64_t width, int patch_size, std::int64_t max_patches);

}  // namespace siglip2
