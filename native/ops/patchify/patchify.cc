#include "ops/patchify/patchify.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "tensor/shape_check.h"

namespace siglip2 {
namespace {

constexpr std::int64_t kMaxSide = std::int64_t{1} << 20;
constexpr std::int64_t kMaxPixels = std::int64_t{1} << 31;

std::string size_text(std::int64_t height, std::int64_t width) {
  return std::to_string(height) + " x " + std::to_string(width);
}

void check_patch_size(const char* operation, std::int64_t patch_size) {
  if (patch_size < 1 || patch_size > kMaxSide) {
    throw Error(kErrorShape,
                std::string(operation) + ": patch_size must be from 1 to " + std::to_string(kMaxSide) + ", got " +
                    std::to_string(patch_size),
                {{"patchSize", patch_size}});
  }
}

void check_output(const char* operation, const OpTable& table, const MatrixView& output, std::int64_t rows,
                  std::int64_t columns) {
  check_activation_type(operation, "output", output.dtype, table.name, table.activation_types);
  if (output.rows != rows || output.columns != columns || output.stride < columns) {
    throw Error(
        kErrorShape,
        std::string(operation) + ": output must be [" + std::to_string(rows) + ", " + std::to_string(columns) +
            "], got [" + std::to_string(output.rows) + ", " + std::to_string(output.columns) + "] with row stride " +
            std::to_string(output.stride),
        {{"expectedRows", rows}, {"expectedColumns", columns}, {"rows", output.rows}, {"columns", output.columns}});
  }
  if (output.data == nullptr && rows * columns > 0) {
    throw Error(kErrorShape, std::string(operation) + ": output has no memory");
  }
}

void check_image(const ImageView& image, std::int64_t index) {
  const std::string name = "patchify_images: image " + std::to_string(index);
  if (image.width < 1 || image.height < 1 || image.width > kMaxSide || image.height > kMaxSide ||
      image.width * image.height > kMaxPixels) {
    throw Error(kErrorImage,
                name + " must have sides of 1 to " + std::to_string(kMaxSide) + " pixels and at most " +
                    std::to_string(kMaxPixels) + " pixels, got " + size_text(image.height, image.width),
                {{"index", index}, {"height", image.height}, {"width", image.width}});
  }
  if (image.channels < 1 || image.channels > 4) {
    throw Error(kErrorImage, name + " must have 1 to 4 channels, got " + std::to_string(image.channels),
                {{"index", index}, {"channels", image.channels}});
  }
  if (image.data == nullptr) throw Error(kErrorImage, name + " has no pixels", {{"index", index}});
}

}  // namespace

void patchify_images(const OpTable& table, OpContext& context, const PatchifyImagesArgs& args) {
  if (args.count < 0) {
    throw Error(kErrorShape, "patchify_images: count must not be negative, got " + std::to_string(args.count));
  }
  const bool planar = args.layout == PixelLayout::kPlanar;
  if (!planar) check_patch_size("patchify_images", args.patch_size);
  for (int channel = 0; channel < 3; ++channel) {
    const double deviation = args.deviation[channel];
    if (!std::isfinite(args.mean[channel]) || !std::isfinite(deviation) || deviation == 0.0) {
      throw Error(kErrorShape, "patchify_images: mean and deviation of channel " + std::to_string(channel) +
                                   " must be finite, and deviation not zero");
    }
  }
  if (!std::isfinite(args.rescale)) throw Error(kErrorShape, "patchify_images: rescale must be finite");
  if (args.count > 0 && (args.images == nullptr || args.target_sizes == nullptr)) {
    throw Error(kErrorShape, "patchify_images: images and target_sizes are required");
  }

  const std::int64_t patch = args.patch_size;
  std::int64_t rows = planar ? args.count : 0;
  std::int64_t columns = planar ? args.output.columns : 3 * patch * patch;
  for (std::int64_t i = 0; i < args.count; ++i) {
    check_image(args.images[i], i);
    const std::int64_t height = args.target_sizes[2 * i];
    const std::int64_t width = args.target_sizes[2 * i + 1];
    const std::int64_t least = planar ? 1 : patch;
    if (std::min(height, width) < least || std::max(height, width) > kMaxSide) {
      throw Error(kErrorShape,
                  "patchify_images: target size " + std::to_string(i) + " must have sides of " + std::to_string(least) +
                      " to " + std::to_string(kMaxSide) + " pixels, got " + size_text(height, width),
                  {{"index", i}, {"height", height}, {"width", width}});
    }
    if (!planar) {
      rows += (height / patch) * (width / patch);
    } else if (height != args.target_sizes[0] || width != args.target_sizes[1]) {
      throw Error(kErrorShape,
                  "patchify_images: planar output needs one target size for all images; target size " +
                      std::to_string(i) + " is " + size_text(height, width) + ", the first is " +
                      size_text(args.target_sizes[0], args.target_sizes[1]),
                  {{"index", i}, {"height", height}, {"width", width}});
    } else {
      columns = 3 * height * width;
    }
  }
  check_output("patchify_images", table, args.output, rows, columns);
  if (args.count > 0) table.patchify_images(context, args);
}

void patchify_pixels(const OpTable& table, OpContext& context, const PatchifyPixelsArgs& args) {
  check_patch_size("patchify_pixels", args.patch_size);
  const std::int64_t patch = args.patch_size;
  if (args.images < 0 || args.height < patch || args.width < patch || args.height > kMaxSide || args.width > kMaxSide) {
    throw Error(kErrorShape,
                "patchify_pixels: pixels must be [images, 3, height, width] with sides of patch_size (" +
                    std::to_string(patch) + ") to " + std::to_string(kMaxSide) + ", got [" +
                    std::to_string(args.images) + ", 3, " + std::to_string(args.height) + ", " +
                    std::to_string(args.width) + "]",
                {{"images", args.images}, {"height", args.height}, {"width", args.width}, {"patchSize", patch}});
  }
  check_output("patchify_pixels", table, args.output, args.images * (args.height / patch) * (args.width / patch),
               3 * patch * patch);
  if (args.images == 0) return;
  if (args.pixels == nullptr) throw Error(kErrorShape, "patchify_pixels: pixels are required");
  table.patchify_pixels(context, args);
}

TargetSize naflex_target_size(std::int64_t height, std::int64_t width, int patch_size, std::int64_t max_patches) {
  if (height < 1 || width < 1 || height > kMaxSide || width > kMaxSide) {
    throw Error(kErrorImage,
                "naflex_target_size: the image must have sides of 1 to " + std::to_string(kMaxSide) + " pixels, got " +
                    size_text(height, width),
                {{"height", height}, {"width", width}});
  }
  check_patch_size("naflex_target_size", patch_size);
  if (max_patches < 1) {
    throw Error(kErrorShape, "naflex_target_size: max_patches must be at least 1, got " + std::to_string(max_patches),
                {{"maxPatches", max_patches}});
  }
  const double patch = patch_size;
  const auto patches = [patch](double scale, std::int64_t size) {
    return std::max(1.0, std::ceil(static_cast<double>(size) * scale / patch));
  };
  constexpr double precision = 1e-5;
  double low = precision / 10;
  double high = 100.0;
  while (high - low >= precision) {
    const double scale = (low + high) / 2;
    if (patches(scale, height) * patches(scale, width) <= static_cast<double>(max_patches)) {
      low = scale;
    } else {
      high = scale;
    }
  }
  return {static_cast<std::int32_t>(patches(low, height) * patch),
          static_cast<std::int32_t>(patches(low, width) * patch)};
}

}  // namespace siglip2
