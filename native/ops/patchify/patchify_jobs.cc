#include "ops/patchify/patchify_jobs.h"

#include <algorithm>
#include <cstring>

namespace siglip2::cuda {
namespace {

// Columns of a block at most: with three colours, as many horizontal sums as keep its threads busy, and so few that
// several blocks share a multiprocessor.
constexpr std::int32_t kMostColumns = 128;
// Widths of tiles are multiples of this, so that vectors of the output do not straddle them.
constexpr std::int32_t kColumnStep = 8;
constexpr std::int32_t kMostRowsPerStep = 16;
constexpr std::int32_t kMostStagedGroups = 4;
// What a block gets on every chip without asking; four fit a multiprocessor of an H100.
constexpr std::int64_t kSharedBytes = 48 * 1024;
// Source rows that two strips of an image both read are at most this part of a strip's.
constexpr double kMostOverlap = 0.15;
constexpr std::int32_t kMostStripRows = 64;
constexpr std::int32_t kFarColumns = 16;

std::int64_t divide_up(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

PatchifyWeights fixed_group(const double* weights) {
  PatchifyWeights group = {};
  for (int k = 0; k < kGroup; ++k) {
    const auto bits = static_cast<std::uint32_t>(to_fixed(weights[k]));
    for (int plane = 0; plane < 3; ++plane)
      group.words[plane] |= (bits >> (8 * plane) & 0xFF) << (8 * k);
  }
  return group;
}

PatchifyWeights float_group(const double* weights) {
  PatchifyWeights group;
  for (int k = 0; k < kGroup; ++k) {
    const auto weight = static_cast<float>(weights[k]);
    std::memcpy(&group.words[k], &weight, sizeof weight);
  }
  return group;
}

// The most source groups that `window` neighbouring output positions draw on.
std::int32_t longest_window(const PatchifyTaps* taps, std::int32_t outputs, std::int32_t window) {
  std::int32_t longest = 0;
  for (std::int32_t begin = 0; begin < outputs; ++begin) {
    const PatchifyTaps& last = taps[std::min(begin + window, outputs) - 1];
    longest = std::max(longest, last.first + last.groups - taps[begin].first);
  }
  return longest;
}

// The same for tiles, which begin at multiples of their width.
std::int32_t longest_tile(const PatchifyTaps* taps, std::int32_t outputs, std::int32_t tile) {
  std::int32_t longest = 0;
  for (std::int32_t begin = 0; begin < outputs; begin += tile) {
    const PatchifyTaps& last = taps[std::min(begin + tile, outputs) - 1];
    longest = std::max(longest, last.first + last.groups - taps[begin].first);
  }
  return longest;
}

}  // namespace

std::int64_t patchify_shared_bytes(const PatchifyImage& image, std::int64_t columns, ResizeMode mode) {
  const std::int64_t value_bytes = mode == ResizeMode::kPil ? 4 : 16;  // of four rows
  return kNormalizationFloats * 4 + image.ring_groups * 3 * columns * value_bytes +
         std::int64_t{image.staged_groups} * kGroup * image.staged_vectors * 16;
}

PatchifyJobs::PatchifyJobs(const PatchifyImagesArgs& args) : args_(args) {
  const bool patches = args.layout == PixelLayout::kPatches;
  const std::int64_t patch = patches ? args.patch_size : 1;
  std::int64_t output_row = 0;
  for (std::int64_t i = 0; i < args.count; ++i) {
    const ImageView& source = args.images[i];
    const std::int64_t target_height = args.target_sizes[2 * i];
    const std::int64_t target_width = args.target_sizes[2 * i + 1];
    PatchifyImage image = {};
    image.width = static_cast<std::int32_t>(source.width);
    image.height = static_cast<std::int32_t>(source.height);
    image.channels = source.channels;
    pixels.push_back(source.data);
    if (is_vertical_first(args, i)) {
      image.height = static_cast<std::int32_t>(target_height);
      filtered_.push_back({VerticalFirst(source, target_height, args.filter), images.size(), {}});
    }
    image.row_bytes = source.width * source.channels;
    image.bytes = image.row_bytes * image.height;
    image.output_width = static_cast<std::int32_t>(target_width / patch * patch);
    image.output_height = static_cast<std::int32_t>(target_height / patch * patch);
    image.output_row = output_row;
    output_row += patches ? (target_height / patch) * (target_width / patch) : 1;
    image.horizontal = add_axis({source.width, target_width, image.output_width});
    image.vertical = add_axis({image.height, target_height, image.output_height});
    images.push_back(image);
    add_jobs(static_cast<std::int32_t>(i));
  }
}

std::int32_t PatchifyJobs::add_axis(const AxisKey& key) {
  const auto [entry, is_new] = index_.try_emplace(key, static_cast<std::int32_t>(taps.size()));
  if (!is_new) return entry->second;
  const ResampleFilter filter(key.source, key.target, args_.filter);
  axes_.push_back({filter, entry->second, key.outputs});
  auto groups = static_cast<std::int64_t>(weights.size());
  for (std::int64_t position = 0; position < key.outputs; ++position) {
    const SourceRange range = filter.range(position);
    const std::int64_t first = range.begin / kGroup;
    const std::int64_t count = divide_up(range.end, kGroup) - first;
    taps.push_back({static_cast<std::int32_t>(first), static_cast<std::int32_t>(count), groups});
    groups += count;
  }
  weights.resize(static_cast<std::size_t>(groups));
  return entry->second;
}

bool PatchifyJobs::fits(PatchifyImage& image, std::int32_t tile, std::int32_t rows, std::int32_t staged_groups) const {
  const std::int64_t span =
      std::int64_t{longest_tile(taps.data() + image.horizontal, image.output_width, tile)} * kGroup * image.channels;
  PatchifyImage candidate = image;
  candidate.rows_per_step = rows;
  candidate.ring_groups = longest_window(taps.data() + image.vertical, image.output_height, rows);
  candidate.staged_groups = staged_groups;
  // A row may begin anywhere in its first vector.
  candidate.staged_vectors = static_cast<std::int32_t>(divide_up(span + 15, 16));
  if (patchify_shared_bytes(candidate, tile, args_.mode) > kSharedBytes) return false;
  image = candidate;
  return true;
}

void PatchifyJobs::add_jobs(std::int32_t index) {
  PatchifyImage& image = images[static_cast<std::size_t>(index)];
  const std::int64_t even = divide_up(image.output_width, divide_up(image.output_width, kMostColumns));
  const auto widest = static_cast<std::int32_t>(divide_up(even, kColumnStep) * kColumnStep);
  // The widest tile that leaves room for a good step; or, where filters are long, for any.
  std::int32_t tile = widest;
  std::int32_t rows = 4;
  std::int32_t staged = 2;
  while (tile > 0 && !fits(image, tile, rows, staged))
    tile = tile / 2 / kColumnStep * kColumnStep;
  if (tile == 0) {
    tile = widest;
    rows = 1;
    staged = 1;
    while (tile > 0 && !fits(image, tile, rows, staged))
      tile = tile / 2 / kColumnStep * kColumnStep;
  }
  if (tile == 0) {
    for (std::int32_t row = 0; row < image.output_height; ++row) {
      for (std::int32_t column = 0; column < image.output_width; column += kFarColumns)
        far_pixels.push_back({index, column, std::min(kFarColumns, image.output_width - column), row, 1});
    }
    return;
  }
  while (rows < kMostRowsPerStep && fits(image, tile, 2 * rows, staged))
    rows *= 2;
  while (staged < kMostStagedGroups && fits(image, tile, rows, staged + 1))
    ++staged;
  shared_bytes = std::max(shared_bytes, patchify_shared_bytes(image, tile, args_.mode));

  const double source_rows_per_row = static_cast<double>(image.height) / image.output_height;
  const double shared_rows = kGroup * longest_window(taps.data() + image.vertical, image.output_height, 1);
  const double least_rows = std::min(shared_rows / (kMostOverlap * source_rows_per_row), double{kMostStripRows});
  const auto steps = static_cast<std::int32_t>(divide_up(static_cast<std::int64_t>(least_rows) + 1, rows));
  const std::int32_t strip_rows = steps * rows;
  for (std::int32_t row = 0; row < image.output_height; row += strip_rows) {
    for (std::int32_t column = 0; column < image.output_width; column += tile) {
      strips.push_back({index, column, std::min(tile, image.output_width - column), row,
                        std::min(strip_rows, image.output_height - row)});
    }
  }
}

void PatchifyJobs::fill() {
  std::vector<double> values;
  for (const Axis& axis : axes_) {
    for (std::int64_t position = 0; position < axis.outputs; ++position) {
      const PatchifyTaps& tap = taps[static_cast<std::size_t>(axis.first_taps + position)];
      values.assign(static_cast<std::size_t>(tap.groups) * kGroup, 0.0);
      const std::int64_t begin = axis.filter.range(position).begin;
      axis.filter.fill_weights(position, values.data() + (begin - std::int64_t{tap.first} * kGroup));
      for (std::int32_t group = 0; group < tap.groups; ++group) {
        const double* const four = values.data() + group * kGroup;
        weights[static_cast<std::size_t>(tap.weights + group)] =
            args_.mode == ResizeMode::kPil ? fixed_group(four) : float_group(four);
      }
    }
  }
  if (args_.mode == ResizeMode::kPil) {
    float normalized[3][256];
    fill_normalized(args_, normalized);
    normalization.assign(normalized[0], normalized[0] + kNormalizationFloats);
  } else {
    for (std::size_t channel = 0; channel < 3; ++channel) {
      normalization[channel] = static_cast<float>(args_.rescale / args_.deviation[channel]);
      normalization[3 + channel] = static_cast<float>(-args_.mean[channel] / args_.deviation[channel]);
    }
  }
  for (FilteredImage& image : filtered_) {
    image.pixels.resize(static_cast<std::size_t>(image.pass.height() * image.pass.row_bytes()));
    for (std::int64_t row = 0; row < image.pass.height(); ++row)
      image.pass.make_row(row, image.pixels.data() + row * image.pass.row_bytes());
    pixels[image.image] = image.pixels.data();
  }
}

}  // namespace siglip2::cuda
