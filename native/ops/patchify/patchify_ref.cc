// The definition, pixel by pixel and in double precision: the oracle of the tests.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "ops/patchify/patchify.h"

namespace siglip2 {
namespace {

// Values [height, width, 3].
struct Pixels {
  std::int64_t height;
  std::int64_t width;
  std::vector<double> values;

  Pixels(std::int64_t height, std::int64_t width)
      : height(height), width(width), values(static_cast<std::size_t>(height * width * 3)) {}
  double& at(std::int64_t row, std::int64_t column, int channel) {
    return values[static_cast<std::size_t>((row * width + column) * 3 + channel)];
  }
  double at(std::int64_t row, std::int64_t column, int channel) const {
    return const_cast<Pixels*>(this)->at(row, column, channel);
  }
};

Pixels to_colour(const ImageView& image) {
  Pixels pixels(image.height, image.width);
  for (std::int64_t row = 0; row < image.height; ++row) {
    for (std::int64_t column = 0; column < image.width; ++column) {
      const std::uint8_t* pixel = image.data + (row * image.width + column) * image.channels;
      for (int channel = 0; channel < 3; ++channel) {
        pixels.at(row, column, channel) = pixel[image.channels < 3 ? 0 : channel];
      }
    }
  }
  return pixels;
}

double bilinear(double x) {
  return std::fabs(x) < 1 ? 1 - std::fabs(x) : 0;
}

// Keys' cubic with a = −1/2.
double bicubic(double x) {
  constexpr double a = -0.5;
  x = std::fabs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

// The filter of one output position: weights of the source positions from `first` on.
struct Filter {
  std::int64_t first;
  std::vector<double> weights;
};

Filter filter_at(std::int64_t position, std::int64_t source, std::int64_t target, ResizeFilter kind) {
  const double scale = static_cast<double>(source) / static_cast<double>(target);
  const double filter_scale = std::max(scale, 1.0);
  const double support = (kind == ResizeFilter::kBilinear ? 1.0 : 2.0) * filter_scale;
  const double center = (static_cast<double>(position) + 0.5) * scale;
  const auto first = std::max<std::int64_t>(0, static_cast<std::int64_t>(center - support + 0.5));
  const auto last = std::min<std::int64_t>(source, static_cast<std::int64_t>(center + support + 0.5));
  const double inverse = 1.0 / filter_scale;
  Filter filter{first, {}};
  double sum = 0;
  for (std::int64_t j = first; j < last; ++j) {
    const double x = (static_cast<double>(j) - center + 0.5) * inverse;
    filter.weights.push_back(kind == ResizeFilter::kBilinear ? bilinear(x) : bicubic(x));
    sum += filter.weights.back();
  }
  for (double& weight : filter.weights)
    weight /= sum;
  return filter;
}

// Σ weight · value. In Pillow's arithmetic: weights rounded to 22 bits after the point, the sum rounded to a byte.
template <typename ValueAt>
double filtered(const Filter& filter, ResizeMode mode, ValueAt value_at) {
  double sum = 0;
  for (std::size_t k = 0; k < filter.weights.size(); ++k) {
    double weight = filter.weights[k];
    if (mode == ResizeMode::kPil) weight = std::trunc(weight * 4194304.0 + (weight < 0 ? -0.5 : 0.5));
    sum += weight * value_at(filter.first + static_cast<std::int64_t>(k));  // integers below 2^31 for kPil: exact
  }
  if (mode == ResizeMode::kFloat) return sum;
  return std::clamp(std::floor((sum + 2097152.0) / 4194304.0), 0.0, 255.0);
}

Pixels resize_width(const Pixels& source, std::int64_t width, const PatchifyImagesArgs& args) {
  if (width == source.width) return source;
  Pixels target(source.height, width);
  for (std::int64_t column = 0; column < width; ++column) {
    const Filter filter = filter_at(column, source.width, width, args.filter);
    for (std::int64_t row = 0; row < source.height; ++row) {
      for (int channel = 0; channel < 3; ++channel) {
        target.at(row, column, channel) =
            filtered(filter, args.mode, [&](std::int64_t j) { return source.at(row, j, channel); });
      }
    }
  }
  return target;
}

Pixels resize_height(const Pixels& source, std::int64_t height, const PatchifyImagesArgs& args) {
  if (height == source.height) return source;
  Pixels target(height, source.width);
  for (std::int64_t row = 0; row < height; ++row) {
    const Filter filter = filter_at(row, source.height, height, args.filter);
    for (std::int64_t column = 0; column < source.width; ++column) {
      for (int channel = 0; channel < 3; ++channel) {
        target.at(row, column, channel) =
            filtered(filter, args.mode, [&](std::int64_t j) { return source.at(j, column, channel); });
      }
    }
  }
  return target;
}

// Horizontally first, except that Pillow's Image.resize (since version 12.3) takes very tall images vertically first.
Pixels resize(const Pixels& source, std::int64_t height, std::int64_t width, const PatchifyImagesArgs& args) {
  if (args.mode == ResizeMode::kPil && source.height > 100 * source.width && height < source.height) {
    return resize_width(resize_height(source, height, args), width, args);
  }
  return resize_height(resize_width(source, width, args), height, args);
}

// Row of the output and index in it of one value, from the definition of the patch order.
struct Place {
  std::int64_t row;
  std::int64_t column;
};

Place patch_place(std::int64_t row, std::int64_t column, int channel, std::int64_t width, std::int64_t patch) {
  return {row / patch * (width / patch) + column / patch, ((row % patch) * patch + column % patch) * 3 + channel};
}

}  // namespace

void patchify_images_reference(OpContext& context, const PatchifyImagesArgs& args) {
  std::int64_t first_row = 0;
  for (std::int64_t i = 0; i < args.count; ++i) {
    const std::int64_t height = args.target_sizes[2 * i];
    const std::int64_t width = args.target_sizes[2 * i + 1];
    const std::int64_t patch = args.layout == PixelLayout::kPatches ? args.patch_size : 1;
    const Pixels resized = resize(to_colour(args.images[i]), height, width, args);
    for (std::int64_t row = 0; row < height / patch * patch; ++row) {
      for (std::int64_t column = 0; column < width / patch * patch; ++column) {
        for (int channel = 0; channel < 3; ++channel) {
          const Place place = args.layout == PixelLayout::kPatches
                                  ? patch_place(row, column, channel, width, patch)
                                  : Place{0, (channel * height + row) * width + column};
          const double value = resized.at(row, column, channel);
          args.output.as<float>()[(first_row + place.row) * args.output.stride + place.column] =
              static_cast<float>((value * args.rescale - args.mean[channel]) / args.deviation[channel]);
        }
      }
    }
    first_row += args.layout == PixelLayout::kPatches ? (height / patch) * (width / patch) : 1;
  }
}

void patchify_pixels_reference(OpContext& context, const PatchifyPixelsArgs& args) {
  const std::int64_t patch = args.patch_size;
  const std::int64_t patches = (args.height / patch) * (args.width / patch);
  for (std::int64_t image = 0; image < args.images; ++image) {
    for (int channel = 0; channel < 3; ++channel) {
      for (std::int64_t row = 0; row < args.height / patch * patch; ++row) {
        for (std::int64_t column = 0; column < args.width / patch * patch; ++column) {
          const Place place = patch_place(row, column, channel, args.width, patch);
          args.output.as<float>()[(image * patches + place.row) * args.output.stride + place.column] =
              args.pixels[((image * 3 + channel) * args.height + row) * args.width + column];
        }
      }
    }
  }
}

}  // namespace siglip2
