#include "ops/patchify/patchify_plan.h"

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "cpu/thread_pool.h"

namespace siglip2 {
namespace {

// One weight is below 2 and two neighbours sum to less than 2, so that the high parts are below 2^7 and sum to at most
// 2^7: products with bytes of a pair fit 16 bits.
PairWeight split(std::int32_t even, std::int32_t odd) {
  const auto low = [](std::int32_t weight) { return static_cast<std::int16_t>(weight); };
  const auto high = [low](std::int32_t weight) {
    return static_cast<std::int8_t>((weight - low(weight)) >> kWeightLowBits);
  };
  return {{low(even), low(odd)}, {high(even), high(odd), high(even), high(odd)}};
}

// Weights are below 1.99, so that the last part is below 2^7 as well.
QuadWeight split(const std::int32_t (&weights)[4]) {
  QuadWeight quad;
  for (int position = 0; position < 4; ++position) {
    std::int32_t rest = weights[position];
    for (int part = 0; part < 3; ++part) {
      quad.parts[part][position] = static_cast<std::int8_t>(rest);
      rest = (rest - quad.parts[part][position]) >> 8;
    }
  }
  return quad;
}

struct AxisKey {
  std::int64_t source;
  std::int64_t target;
  std::int64_t outputs;
  auto operator<=>(const AxisKey&) const = default;
};

// One axis with its memory, whose size is known before the weights are, so that axes can be filled by many threads
// without any of them allocating.
class Axis {
 public:
  Axis(const AxisKey& key, const PatchifyImagesArgs& args, WeightForm form)
      : filter_(key.source, key.target, args.filter),
        mode_(args.mode),
        form_(mode_ == ResizeMode::kPil ? form : WeightForm::kPairs),
        view_{key.source, key.outputs} {
    const std::int64_t size = positions_of(form_);
    taps_.resize(static_cast<std::size_t>(key.outputs));
    std::int64_t total = 0;
    for (std::int64_t position = 0; position < key.outputs; ++position) {
      const SourceRange range = filter_.range(position);
      ResampleTaps& taps = taps_[static_cast<std::size_t>(position)];
      taps = {range.begin / size, (range.end + size - 1) / size - range.begin / size, total};
      total += taps.units;
      view_.longest = std::max(view_.longest, taps.units);
    }
    weights_.resize(static_cast<std::size_t>(view_.longest * size));
    if (mode_ == ResizeMode::kFloat) {
      real_.resize(static_cast<std::size_t>(2 * total));
    } else if (form_ == WeightForm::kPairs) {
      pairs_.resize(static_cast<std::size_t>(total));
    } else {
      quads_.resize(static_cast<std::size_t>(total));
    }
    view_.taps = taps_.data();
    view_.pairs = pairs_.data();
    view_.quads = quads_.data();
    view_.real = real_.data();
  }

  void fill() {
    for (std::int64_t position = 0; position < view_.outputs; ++position)
      fill_position(position);
  }

  const ResampleAxis* view() const { return &view_; }

 private:
  void fill_position(std::int64_t position) {
    const std::int64_t size = positions_of(form_);
    const ResampleTaps& taps = taps_[static_cast<std::size_t>(position)];
    double* const weights = weights_.data();  // of source positions from size · first on
    std::fill(weights, weights + taps.units * size, 0.0);
    filter_.fill_weights(position, weights + filter_.range(position).begin - size * taps.first);
    for (std::int64_t unit = 0; unit < taps.units; ++unit) {
      const auto index = static_cast<std::size_t>(taps.weights + unit);
      const double* const own = weights + unit * size;
      if (mode_ == ResizeMode::kFloat) {
        real_[2 * index] = static_cast<float>(own[0]);
        real_[2 * index + 1] = static_cast<float>(own[1]);
      } else if (form_ == WeightForm::kPairs) {
        pairs_[index] = split(to_fixed(own[0]), to_fixed(own[1]));
      } else {
        quads_[index] = split({to_fixed(own[0]), to_fixed(own[1]), to_fixed(own[2]), to_fixed(own[3])});
      }
    }
  }

  ResampleFilter filter_;
  ResizeMode mode_;
  WeightForm form_;
  ResampleAxis view_;
  std::vector<ResampleTaps> taps_;
  std::vector<PairWeight> pairs_;
  std::vector<QuadWeight> quads_;
  std::vector<float> real_;
  std::vector<double> weights_;  // of one position, while it is computed
};

}  // namespace

struct PatchifyPlan::Storage {
  std::deque<Axis> axes;
  std::deque<std::vector<std::uint8_t>> sources;  // images filtered vertically first
  std::map<AxisKey, std::size_t> index;
  std::vector<ImagePlan> images;
  std::vector<PatchifyStrip> strips;
  float normalized[3][256];
};

PatchifyPlan::PatchifyPlan(const PatchifyImagesArgs& args, WeightForm form, int threads) {
  auto storage = std::make_unique<Storage>();
  const auto axis = [&](std::int64_t source, std::int64_t target, std::int64_t outputs) {
    const AxisKey key{source, target, outputs};
    const auto [entry, is_new] = storage->index.try_emplace(key, storage->axes.size());
    if (is_new) storage->axes.emplace_back(key, args, form);
    return storage->axes[entry->second].view();
  };

  std::vector<std::pair<VerticalFirst, std::uint8_t*>> vertical_first;

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
      vertical_first.emplace_back(VerticalFirst(source, height, args.filter), pixels.data());
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
  for (const auto& [pass, pixels] : vertical_first) {
    cpu::parallel_for(pass.height(), threads,
                      [&](std::int64_t row, int) { pass.make_row(row, pixels + row * pass.row_bytes()); });
  }

  fill_normalized(args, storage->normalized);
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
