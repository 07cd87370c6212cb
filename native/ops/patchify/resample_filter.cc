#include "ops/patchify/resample_filter.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "cpu/thread_pool.h"

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

std::int32_t to_fixed(double weight) {
  const double scaled = weight * (1 << kWeightBits);
  return static_cast<std::int32_t>(weight < 0 ? scaled - 0.5 : scaled + 0.5);  // half away from zero
}

// One weight is below 2 and two neighbours sum to less than 2, so that the high parts are below 2^7 and sum to at most
// 2^7: products with bytes of a pair fit 16 bits.
PairWeight split(std::int32_t even, std::int32_t odd) {
  const auto low = [](std::int32_t weight) { return static_cast<std::int16_t>(weight); };
  const auto high = [low](std::int32_t weight) {
    return static_cast<std::int8_t>((weight - low(weight)) >> kWeightLowBits);
  };
  return {{low(even), low(odd)}, {high(even), high(odd), high(even), high(odd)}};
}

struct AxisKey {
  std::int64_t source;
  std::int64_t target;
  std::int64_t outputs;
  auto operator<=>(const AxisKey&) const = default;
};

// Since version 12.3, Pillow's Image.resize filters very tall images vertically first.
bool is_vertical_first(const PatchifyImagesArgs& args, std::int64_t index) {
  const ImageView& image = args.images[index];
  return args.mode == ResizeMode::kPil && image.height > 100 * image.width &&
         args.target_sizes[2 * index] < image.height;
}

// One axis with its memory, whose size is known before the weights are, so that axes can be filled by many threads
// without any of them allocating.
class Axis {
 public:
  Axis(const AxisKey& key, ResizeMode mode, ResizeFilter filter)
      : key_(key), mode_(mode), filter_(filter), view_{key.source, key.outputs} {
    scale_ = static_cast<double>(key.source) / static_cast<double>(key.target);
    stretch_ = std::max(scale_, 1.0);
    support_ = stretch_ * (filter == ResizeFilter::kBilinear ? 1.0 : 2.0);
    taps_.resize(static_cast<std::size_t>(key.outputs));
    std::int64_t total = 0;
    for (std::int64_t position = 0; position < key.outputs; ++position) {
      const Range range = source_range(position);
      ResampleTaps& taps = taps_[static_cast<std::size_t>(position)];
      taps = {range.begin / 2, (range.end + 1) / 2 - range.begin / 2, total};
      total += taps.pairs;
      view_.longest = std::max(view_.longest, taps.pairs);
      longest_range_ = std::max(longest_range_, range.end - range.begin);
    }
    weights_.resize(static_cast<std::size_t>(longest_range_ + 2));
    if (mode == ResizeMode::kPil) {
      fixed_.resize(static_cast<std::size_t>(total));
    } else {
      real_.resize(static_cast<std::size_t>(2 * total));
    }
    view_.taps = taps_.data();
    view_.fixed = fixed_.data();
    view_.real = real_.data();
  }

  void fill() {
    for (std::int64_t position = 0; position < key_.outputs; ++position)
      fill_position(position);
  }

  const ResampleAxis* view() const { return &view_; }

 private:
  struct Range {
    std::int64_t begin;
    std::int64_t end;
  };

  bool unchanged() const { return key_.source == key_.target; }
  double center(std::int64_t position) const { return (static_cast<double>(position) + 0.5) * scale_; }

  Range source_range(std::int64_t position) const {
    // Pillow skips an axis of unchanged size. One weight of 1 is the same: (p · 2^22 + 2^21) >> 22 = p.
    if (unchanged()) return {position, position + 1};
    const double middle = center(position);
    return {std::max<std::int64_t>(static_cast<std::int64_t>(middle - support_ + 0.5), 0),
            std::min(static_cast<std::int64_t>(middle + support_ + 0.5), key_.source)};
  }

  void fill_position(std::int64_t position) {
    const Range range = source_range(position);
    const ResampleTaps& taps = taps_[static_cast<std::size_t>(position)];
    // weights_[0] stands for source position 2 · first_pair.
    const std::int64_t lead = range.begin - 2 * taps.first_pair;
    const std::int64_t count = range.end - range.begin;
    double* weights = weights_.data();
    weights[0] = 0.0;
    weights[lead + count] = 0.0;
    weights += lead;
    if (unchanged()) {
      weights[0] = 1.0;
    } else {
      const double middle = center(position);
      const double shrink = 1.0 / stretch_;
      double sum = 0.0;
      for (std::int64_t k = 0; k < count; ++k) {
        weights[k] = filter_weight(filter_, (static_cast<double>(k + range.begin) - middle + 0.5) * shrink);
        sum += weights[k];
      }
      for (std::int64_t k = 0; k < count; ++k)
        weights[k] /= sum;
    }
    weights = weights_.data();
    for (std::int64_t pair = 0; pair < taps.pairs; ++pair) {
      const auto index = static_cast<std::size_t>(taps.weights + pair);
      if (mode_ == ResizeMode::kPil) {
        fixed_[index] = split(to_fixed(weights[2 * pair]), to_fixed(weights[2 * pair + 1]));
      } else {
        real_[2 * index] = static_cast<float>(weights[2 * pair]);
        real_[2 * index + 1] = static_cast<float>(weights[2 * pair + 1]);
      }
    }
  }

  AxisKey key_;
  ResizeMode mode_;
  ResizeFilter filter_;
  double scale_;
  double stretch_;
  double support_;
  std::int64_t longest_range_ = 0;
  ResampleAxis view_;
  std::vector<ResampleTaps> taps_;
  std::vector<PairWeight> fixed_;
  std::vector<float> real_;
  std::vector<double> weights_;  // of one position, while it is computed
};

// One row of the vertical pass in Pillow's arithmetic. Images that need it are rare, so it is plain.
void filter_row_first(const ImageView& image, const ResampleAxis& axis, std::int64_t row, std::uint8_t* out) {
  constexpr std::int64_t block = 64;
  const ResampleTaps& taps = axis.taps[row];
  const std::int64_t row_bytes = image.width * image.channels;
  for (std::int64_t begin = 0; begin < row_bytes; begin += block) {
    const std::int64_t count = std::min(block, row_bytes - begin);
    std::int32_t sum[block];
    std::fill(sum, sum + block, 1 << (kWeightBits - 1));
    for (std::int64_t k = 0; k < 2 * taps.pairs; ++k) {
      const PairWeight& pair = axis.fixed[taps.weights + k / 2];
      const std::int32_t weight = pair.high[k % 2] * (1 << kWeightLowBits) + pair.low[k % 2];
      // The padded pairs may stand out of the image by one row, with a weight of zero.
      const std::int64_t source_row = std::min(2 * taps.first_pair + k, image.height - 1);
      const std::uint8_t* from = image.data + source_row * row_bytes + begin;
      for (std::int64_t i = 0; i < count; ++i)
        sum[i] += from[i] * weight;
    }
    for (std::int64_t i = 0; i < count; ++i) {
      out[begin + i] = static_cast<std::uint8_t>(std::clamp(sum[i] >> kWeightBits, 0, 255));
    }
  }
}

}  // namespace

struct PatchifyPlan::Storage {
  std::deque<Axis> axes;
  std::deque<std::vector<std::uint8_t>> sources;  // images filtered vertically first
  std::map<AxisKey, std::size_t> index;
  std::vector<ImagePlan> images;
  std::vector<PatchifyStrip> strips;
  float normalized[3][256];
};

PatchifyPlan::PatchifyPlan(const PatchifyImagesArgs& args, int threads) {
  auto storage = std::make_unique<Storage>();
  const auto axis = [&](std::int64_t source, std::int64_t target, std::int64_t outputs) {
    const AxisKey key{source, target, outputs};
    const auto [entry, is_new] = storage->index.try_emplace(key, storage->axes.size());
    if (is_new) storage->axes.emplace_back(key, args.mode, args.filter);
    return storage->axes[entry->second].view();
  };

  struct VerticalFirst {
    std::int64_t image;
    const ResampleAxis* axis;
    std::uint8_t* data;
  };
  std::vector<VerticalFirst> vertical_first;

  // Whole images are the cheapest unit: strips of one image both need the source rows at their common border. Images
  // are cut only where threads would go without work.
  const bool cut = threads > 1 && args.count < 2 * static_cast<std::int64_t>(threads);
  const std::int64_t strips_per_image = cut ? (2 * threads + args.count - 1) / args.count : 1;
  const std::int64_t patch = args.layout == PixelLayout::kPatches ? args.patch_size : 1;
  std::int64_t output_row = 0;
  for (std::int64_t i = 0; i < args.count; ++i) {
    ImageView source = args.images[i];
    const std::int64_t height = args.target_sizes[2 * i];
    const std::int64_t width = args.target_sizes[2 * i + 1];
    const std::int64_t patch_rows = height / patch;
    const std::int64_t patch_columns = width / patch;
    if (is_vertical_first(args, i)) {
      auto& pixels = storage->sources.emplace_back(static_cast<std::size_t>(height * source.width * source.channels));
      vertical_first.push_back({i, axis(source.height, height, height), pixels.data()});
      source.data = pixels.data();
      source.height = height;
    }
    storage->images.push_back({source, axis(source.width, width, patch_columns * patch),
                               axis(source.height, height, patch_rows * patch), output_row});
    output_row += args.layout == PixelLayout::kPatches ? patch_rows * patch_columns : 1;
    const std::int64_t pieces = std::min(strips_per_image, patch_rows);
    for (std::int64_t piece = 0; piece < pieces; ++piece) {
      storage->strips.push_back({i, patch_rows * piece / pieces * patch, patch_rows * (piece + 1) / pieces * patch});
    }
  }

  cpu::parallel_for(static_cast<std::int64_t>(storage->axes.size()), threads,
                    [&](std::int64_t index, int) { storage->axes[static_cast<std::size_t>(index)].fill(); });
  for (const VerticalFirst& work : vertical_first) {
    const ImageView& image = args.images[work.image];
    const std::int64_t row_bytes = image.width * image.channels;
    cpu::parallel_for(work.axis->outputs, threads, [&](std::int64_t row, int) {
      filter_row_first(image, *work.axis, row, work.data + row * row_bytes);
    });
  }

  for (int channel = 0; channel < 3; ++channel) {
    for (int byte = 0; byte < 256; ++byte) {
      storage->normalized[channel][byte] =
          static_cast<float>((byte * args.rescale - args.mean[channel]) / args.deviation[channel]);
    }
  }
  images = storage->images.data();
  strips = storage->strips.data();
  strip_count = static_cast<std::int64_t>(storage->strips.size());
  normalized = storage->normalized[0];
  storage_ = storage.release();
}

PatchifyPlan::~PatchifyPlan() {
  delete storage_;
}

}  // namespace siglip2
