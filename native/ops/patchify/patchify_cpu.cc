// Resize, normalise and cut in one pass over the source.
//
// Plan. A strip of output rows of one image is made by one thread. For each output row the source rows that its filter
// needs are first filtered horizontally, 16 rows at a time (lanes = rows), into a small window of rows that slides down
// the image; then the window is filtered vertically into one row, which is normalised straight into patch order. Wide
// images go through this in tiles of columns, so that the window stays in the second-level cache. Source bytes enter
// the horizontal filter through a second window: 16 rows by some 256 columns, transposed so that the bytes of one
// column lie side by side; it stays in the first-level cache. Nothing else is stored, and each source row is filtered
// once (where an image is cut into strips: up to 15 rows and half a filter more at each cut).
//
// Arithmetic of kPil: a pixel of 8 bits times a weight of 22 bits after the point. It is exact: sums are taken modulo
// 2^32, and the true sum fits 32 bits (Σ|weight| < 2 · 2^22). On pairs of positions (patchify_simd.h) these are
// products with the weight's lower 16 bits (vpmaddwd, two neighbours into 32 bits) and with the rest (vpmaddubsw, two
// neighbours into 16 bits, modulo 2^16, since these sums are shifted by 16 in the end). On quads (patchify_quads.h),
// where a machine has vpdpbusd, they are products with the weight's three bytes, four neighbours into 32 bits; and then
// the three sums of each of 16 rows come out side by side as the vertical filter wants them, so that nothing is
// transposed after the horizontal one.
//
// Floor, 1024 × 768 → 288 × 224 (252 patches), three channels: 2.36 MB read, 0.77 MB written;
// products 768 · 288 · 3 · 6.9 + 224 · 288 · 3 · 6.9 = 5.9 million. AVX2 takes 3 multiplications and 5 other vector
// instructions for 32 products: 1.5 million instructions, at four a cycle 0.37 million cycles. vpdpbusd multiplies 64
// bytes, of which about two thirds meet a weight other than zero: 3 for 43 products, 0.42 million, and about 15 others
// for 48 results, 0.26 million; at two a cycle 0.34 million cycles. Transposing the source takes 0.2 instructions a
// byte (with AVX-512 0.14), 0.5 million, 0.2 million cycles at the two shuffles a cycle that there are. The memory
// traffic at 10 GB/s takes 0.31 ms, a million cycles: where source pixels are not in a cache, that is what remains.
//
// Memory: a window holds the longest filter. Up to about 100 KB for photographs; at the worst (2^20 rows or columns
// shrunk to a few) 50 MB for each window in kPil, 200 MB in kFloat.
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "cpu/kernels.h"
#include "cpu/simd/quad_tile.h"
#include "cpu/thread_pool.h"
#include "ops/patchify/patchify.h"
#include "ops/patchify/patchify_normalize.h"
#include "ops/patchify/patchify_plan.h"
#include "ops/patchify/patchify_quads.h"
#include "ops/patchify/patchify_simd.h"

namespace siglip2::SIGLIP2_ISA {
namespace {

constexpr std::int64_t kColumnWindow = 256;  // columns
constexpr std::int64_t kRowWindowBytes = 192 * 1024;

std::int64_t smaller(std::int64_t a, std::int64_t b) {
  return a < b ? a : b;
}
std::int64_t larger(std::int64_t a, std::int64_t b) {
  return a > b ? a : b;
}

// Pillow's arithmetic: bytes between and after the passes, on pairs of source positions.
struct PairArithmetic : Normalizer {
  using Value = std::uint8_t;
  static constexpr WeightForm kForm = WeightForm::kPairs;

  using Normalizer::Normalizer;
  static void horizontal(const std::uint8_t* units, const ResampleAxis& axis, const ResampleTaps& taps, Value* out) {
    filter_bytes(units, kPairBytes, axis.pairs + taps.weights, taps.units, out);
  }
  static void scatter(const Value* columns, std::int64_t step, Value* rows, std::int64_t row_values) {
    scatter_bytes(columns, step, rows, 2 * row_values);
  }
  // `rows` holds pairs of rows: value i of the even row at 2i, of the odd row at 2i + 1.
  static void vertical(const Value* rows, std::int64_t row_values, const ResampleAxis& axis, const ResampleTaps& taps,
                       std::int64_t values, Value* out) {
    for (std::int64_t i = 0; i < values; i += kGroupValues) {
      filter_bytes(rows + 2 * i, 2 * row_values, axis.pairs + taps.weights, taps.units, out + i);
    }
  }
  static std::int64_t column_offset(std::int64_t column) { return 2 * column; }
};

#if defined(SIGLIP2_PATCHIFY_QUADS)
// The same on quads.
struct QuadArithmetic : Normalizer {
  using Value = std::uint8_t;
  static constexpr WeightForm kForm = WeightForm::kQuads;

  using Normalizer::Normalizer;
  // `rows` holds quads of rows, `row_values` values apart: value i of their rows from 4i on. One column of 16 rows.
  static void horizontal(const std::uint8_t* units, const ResampleAxis& axis, const ResampleTaps& taps, Value* rows,
                         std::int64_t row_values, std::int64_t column) {
    filter_column(units, axis.quads + taps.weights, taps.units, rows + 4 * kChannels * column, 4 * row_values);
  }
  // The same into planes of `plane` columns.
  static void horizontal_planar(const std::uint8_t* units, const ResampleAxis& axis, const ResampleTaps& taps,
                                Value* rows, std::int64_t row_values, std::int64_t column, std::int64_t plane) {
    constexpr int kQuarter = kQuadBlockBytes / 4;
    Value bytes[kQuadBlockBytes];
    filter_column(units, axis.quads + taps.weights, taps.units, bytes, kQuarter);
    for (int quad = 0; quad < kBlockLanes / 4; ++quad) {
      for (int channel = 0; channel < kChannels; ++channel)
        std::memcpy(rows + 4 * (quad * row_values + channel * plane + column), bytes + quad * kQuarter + 4 * channel,
                    4);
    }
  }
  static void vertical(const Value* rows, std::int64_t row_values, const ResampleAxis& axis, const ResampleTaps& taps,
                       std::int64_t values, Value* out) {
    for (std::int64_t i = 0; i < values; i += kGroupValues)
      filter_row(rows + 4 * i, 4 * row_values, axis.quads + taps.weights, taps.units, out + i);
  }
};
#endif

// float32 throughout.
struct FloatArithmetic {
  using Value = float;
  static constexpr WeightForm kForm = WeightForm::kPairs;

  static void horizontal(const std::uint8_t* units, const ResampleAxis& axis, const ResampleTaps& taps, Value* out) {
    filter_columns(units, kPairBytes, axis.real + 2 * taps.weights, taps.units, out);
  }
  static void scatter(const Value* columns, std::int64_t step, Value* rows, std::int64_t row_values) {
    scatter_floats(columns, step, rows, row_values);
  }
  static void vertical(const Value* rows, std::int64_t row_values, const ResampleAxis& axis, const ResampleTaps& taps,
                       std::int64_t values, Value* out) {
    for (std::int64_t i = 0; i < values; i += kGroupValues) {
      filter_rows(rows + i, row_values, axis.real + 2 * taps.weights, 2 * taps.units, out + i);
    }
  }
  static std::int64_t column_offset(std::int64_t column) { return column; }

  FloatArithmetic(const PatchifyImagesArgs& args, const PatchifyPlan&) {
    for (int channel = 0; channel < 3; ++channel) {
      scale[channel] = static_cast<float>(args.rescale / args.deviation[channel]);
      shift[channel] = static_cast<float>(-args.mean[channel] / args.deviation[channel]);
    }
  }
  void write_colours(const Value* from, std::int64_t pixels, float* to) const {
    for (std::int64_t i = 0; i < pixels; ++i) {
      for (int channel = 0; channel < 3; ++channel) {
        to[3 * i + channel] = from[3 * i + channel] * scale[channel] + shift[channel];
      }
    }
  }
  void write_channel(const Value* from, std::int64_t pixels, int channel, float* to) const {
    for (std::int64_t i = 0; i < pixels; ++i)
      to[i] = from[i] * scale[channel] + shift[channel];
  }

  float scale[3];
  float shift[3];
};

// 16 source rows, read through a window of transposed columns.
template <WeightForm kForm>
class SourceRows {
 public:
  static constexpr std::int64_t kPositions = positions_of(kForm);
  static constexpr std::int64_t kUnitBytes = kPositions * kBlockLanes * kChannels;

  SourceRows(const ImageView& image, std::uint8_t* window, std::int64_t capacity)
      : image_(image), order_(image.channels, kPositions), window_(window), capacity_(capacity) {}

  // Rows from `first` on; beyond the image its last row is repeated (only weights of zero meet it).
  void start(std::int64_t first) {
    first_row_ = first;
    begin_ = 0;
    end_ = 0;
  }

  // Units of columns [first, first + count), which must not lie before those of an earlier call; `limit` is the last
  // unit, exclusive, that calls will ask for.
  const std::uint8_t* units(std::int64_t first, std::int64_t count, std::int64_t limit) {
    if (first < begin_ || first + count > end_) load(first, smaller(limit, first + capacity_));
    return window_ + (first - begin_) * kUnitBytes;
  }

 private:
  static constexpr std::int64_t kGroupUnits = kGroupPixels / kPositions;

  static void gather(const std::uint8_t* pixels, std::int64_t step, const PixelOrder& order, std::uint8_t* units) {
#if defined(SIGLIP2_PATCHIFY_QUADS)
    if constexpr (kForm == WeightForm::kQuads) return gather_quad(pixels, step, order, units);
#endif
    gather_pairs(pixels, step, order, units);
  }

  void load(std::int64_t begin, std::int64_t end) {
    begin_ = begin;
    end_ = begin + divide_up(end - begin, kGroupUnits) * kGroupUnits;
    const std::int64_t step = kPositions * image_.channels;
    const std::int64_t row_bytes = image_.width * image_.channels;
    const std::uint8_t* const row = image_.data + first_row_ * row_bytes;
    // Bytes of each row that can be read with 16 bytes behind them; the last row is the nearest to the image's end.
    const std::int64_t readable = (image_.height - first_row_ - kBlockLanes + 1) * row_bytes - kLoadBytes;
    const bool all_rows = first_row_ + kBlockLanes <= image_.height;
    std::uint8_t* out = window_;
    for (std::int64_t unit = begin_; unit < end_; unit += kGroupUnits, out += kGroupUnits * kUnitBytes) {
      const std::int64_t offset = unit * step;
      if (all_rows && offset <= readable) {
        gather(row + offset, row_bytes, order_, out);
      } else {
        load_edge(offset, out);
      }
    }
  }

  // At the image's edge, where there are not 16 rows, or not 16 bytes to be read.
  void load_edge(std::int64_t offset, std::uint8_t* out) const {
    std::uint8_t copy[kBlockLanes][kLoadBytes] = {};
    const std::int64_t row_bytes = image_.width * image_.channels;
    for (std::int64_t i = 0; i < kBlockLanes; ++i) {
      const std::int64_t row = smaller(first_row_ + i, image_.height - 1);
      const std::uint8_t* const from = image_.data + row * row_bytes + offset;
      const std::int64_t left = (image_.height - row) * row_bytes - offset;
      if (left >= kLoadBytes) {
        std::memcpy(copy[i], from, kLoadBytes);
      } else if (left > 0) {
        std::memcpy(copy[i], from, static_cast<std::size_t>(left));
      }
    }
    gather(copy[0], kLoadBytes, order_, out);
  }

  const ImageView& image_;
  PixelOrder order_;
  std::uint8_t* window_;
  std::int64_t capacity_;
  std::int64_t first_row_ = 0;
  std::int64_t begin_ = 0;
  std::int64_t end_ = 0;
};

std::int64_t aligned(std::int64_t bytes) {
  return divide_up(bytes, 64) * 64;
}

std::int64_t end_unit(const ResampleTaps& taps) {
  return taps.first + taps.units;
}

template <typename Arithmetic>
class Strip {
 public:
  using Value = typename Arithmetic::Value;

  Strip(const PatchifyImagesArgs& args, const Arithmetic& arithmetic, const PatchifyPlan& plan,
        const PatchifyStrip& strip)
      : args_(args),
        arithmetic_(arithmetic),
        image_(plan.images[strip.image].source),
        strip_(strip),
        horizontal_(*plan.images[strip.image].horizontal),
        vertical_(*plan.images[strip.image].vertical),
        output_row_(plan.images[strip.image].output_row) {}

  void run(int worker) {
    const ResampleTaps& top = vertical_.taps[strip_.begin];
    const ResampleTaps& bottom = vertical_.taps[strip_.end - 1];
    const std::int64_t all_batches = divide_up(end_unit(bottom), kBatchUnits) - top.first / kBatchUnits;
    // Twice the longest filter, so that rows are moved to the window's start only now and then.
    window_batches_ = smaller(all_batches, 2 * (divide_up(vertical_.longest, kBatchUnits) + 1));
    const std::int64_t pixel_bytes =
        window_batches_ * kBlockLanes * kChannels * static_cast<std::int64_t>(sizeof(Value));
    const std::int64_t groups = divide_up(horizontal_.outputs, kBlockLanes);
    const std::int64_t fitting = larger(kRowWindowBytes / pixel_bytes / kBlockLanes, 1);
    const std::int64_t tiles = divide_up(groups, fitting);
    tile_pixels_ = divide_up(groups, tiles) * kBlockLanes;
    tile_values_ = tile_pixels_ * kChannels;
    row_values_ = tile_values_ + kPadding;

    // Of units; with pairs an even number, since two are read at once.
    const std::int64_t capacity = larger(kColumnWindow / kPositions, (horizontal_.longest + 1) / 2 * 2);
    const std::int64_t column_bytes = aligned(capacity * SourceRows<Arithmetic::kForm>::kUnitBytes);
    const std::int64_t staging_bytes = aligned(kBlockLanes * kGroupValues * static_cast<std::int64_t>(sizeof(Value)));
    const std::int64_t row_bytes = aligned((tile_values_ + kSurplus) * static_cast<std::int64_t>(sizeof(Value)));
    const std::int64_t window_bytes =
        window_batches_ * kBlockLanes * row_values_ * static_cast<std::int64_t>(sizeof(Value));
    auto* scratch = static_cast<std::uint8_t*>(
        cpu::worker_scratch(worker, static_cast<std::size_t>(column_bytes + staging_bytes + row_bytes + window_bytes)));
    SourceRows<Arithmetic::kForm> source(image_, scratch, capacity);
    staging_ = reinterpret_cast<Value*>(scratch + column_bytes);
    row_ = reinterpret_cast<Value*>(scratch + column_bytes + staging_bytes);
    window_ = reinterpret_cast<Value*>(scratch + column_bytes + staging_bytes + row_bytes);
    for (std::int64_t begin = 0; begin < horizontal_.outputs; begin += tile_pixels_) {
      run_tile(source, begin, smaller(begin + tile_pixels_, horizontal_.outputs));
    }
  }

 private:
  static constexpr std::int64_t kPositions = positions_of(Arithmetic::kForm);
  static constexpr std::int64_t kBatchUnits = kBlockLanes / kPositions;
  // The filters of quads write a little more than they make, of a row of the window and of a finished one.
  static constexpr bool kQuads = Arithmetic::kForm == WeightForm::kQuads;
  static constexpr std::int64_t kPadding = kQuads ? 4 : 0;
  static constexpr std::int64_t kSurplus = kQuads ? 16 : 0;

  void run_tile(SourceRows<Arithmetic::kForm>& source, std::int64_t begin, std::int64_t end) {
    const std::int64_t batch_values = kBlockLanes * row_values_;
    std::int64_t first = vertical_.taps[strip_.begin].first / kBatchUnits;  // batch at the window's start
    std::int64_t filled = first;                                            // batches before it are there
    for (std::int64_t y = strip_.begin; y < strip_.end; ++y) {
      const ResampleTaps& taps = vertical_.taps[y];
      for (const std::int64_t needed = divide_up(end_unit(taps), kBatchUnits); filled < needed; ++filled) {
        if (filled - first == window_batches_) {
          const std::int64_t keep = taps.first / kBatchUnits;
          std::memmove(window_, window_ + (keep - first) * batch_values,
                       static_cast<std::size_t>((filled - keep) * batch_values) * sizeof(Value));
          first = keep;
        }
        filter_batch(source, filled, begin, end, window_ + (filled - first) * batch_values);
      }
      const std::int64_t offset = (taps.first - first * kBatchUnits) * kPositions * row_values_;
      Arithmetic::vertical(window_ + offset, row_values_, vertical_, taps, tile_values_, row_);
      write_row(y, begin, end);
    }
  }

  // 16 source rows, filtered horizontally.
  void filter_batch(SourceRows<Arithmetic::kForm>& source, std::int64_t batch, std::int64_t begin, std::int64_t end,
                    Value* rows) {
    const bool planar = args_.layout == PixelLayout::kPlanar;
    const std::int64_t limit = end_unit(horizontal_.taps[end - 1]);
    source.start(batch * kBlockLanes);
    const auto units = [&](const ResampleTaps& taps) { return source.units(taps.first, taps.units, limit); };
    if constexpr (kQuads) {
      for (std::int64_t x = begin; x < end; ++x) {
        const ResampleTaps& taps = horizontal_.taps[x];
        if (planar) {
          Arithmetic::horizontal_planar(units(taps), horizontal_, taps, rows, row_values_, x - begin, tile_pixels_);
        } else {
          Arithmetic::horizontal(units(taps), horizontal_, taps, rows, row_values_, x - begin);
        }
      }
    } else {
      for (std::int64_t group = begin; group < end; group += kBlockLanes) {
        const std::int64_t count = smaller(kBlockLanes, end - group);
        for (std::int64_t i = 0; i < count; ++i) {
          const ResampleTaps& taps = horizontal_.taps[group + i];
          Arithmetic::horizontal(units(taps), horizontal_, taps, staging_ + i * kGroupValues);
        }
        for (int part = 0; part < kChannels; ++part) {
          // Values of a row: pixel by pixel for patches, channel by channel for planes.
          const Value* columns = staging_ + (planar ? part * kBlockLanes : part * kBlockLanes * kBlockLanes);
          const std::int64_t step = planar ? kGroupValues : kBlockLanes;
          const std::int64_t column =
              planar ? part * tile_pixels_ + group - begin : (group - begin) * kChannels + part * kBlockLanes;
          Arithmetic::scatter(columns, step, rows + Arithmetic::column_offset(column), row_values_);
        }
      }
    }
  }

  void write_row(std::int64_t y, std::int64_t begin, std::int64_t end) const {
    float* output = args_.output.as<float>();
    if (args_.layout == PixelLayout::kPlanar) {
      for (int channel = 0; channel < kChannels; ++channel) {
        arithmetic_.write_channel(row_ + channel * tile_pixels_, end - begin, channel,
                                  output + output_row_ * args_.output.stride +
                                      (channel * vertical_.outputs + y) * horizontal_.outputs + begin);
      }
      return;
    }
    const std::int64_t patch = args_.patch_size;
    const std::int64_t first_patch = output_row_ + y / patch * (horizontal_.outputs / patch);
    for (std::int64_t x = begin; x < end;) {
      const std::int64_t column = x % patch;
      const std::int64_t pixels = smaller(patch - column, end - x);
      arithmetic_.write_colours(
          row_ + (x - begin) * kChannels, pixels,
          output + (first_patch + x / patch) * args_.output.stride + (y % patch * patch + column) * kChannels);
      x += pixels;
    }
  }

  const PatchifyImagesArgs& args_;
  const Arithmetic& arithmetic_;
  const ImageView& image_;
  const PatchifyStrip& strip_;
  const ResampleAxis& horizontal_;
  const ResampleAxis& vertical_;
  std::int64_t output_row_;
  std::int64_t window_batches_ = 0;
  std::int64_t tile_pixels_ = 0;
  std::int64_t tile_values_ = 0;
  std::int64_t row_values_ = 0;  // from one row of the window to the next
  Value* staging_ = nullptr;     // [16 columns, 3, 16 rows], not yet transposed
  Value* row_ = nullptr;         // [tile_values_]
  Value* window_ = nullptr;      // [window_batches_, 16, row_values_]
};

template <typename Arithmetic>
void run_strips(const OpContext& context, const PatchifyImagesArgs& args) {
  const PatchifyPlan plan(args, Arithmetic::kForm, context.threads);
  const Arithmetic arithmetic(args, plan);
  cpu::parallel_for(plan.strip_count, context.threads, [&](std::int64_t index, int worker) {
    Strip<Arithmetic>(args, arithmetic, plan, plan.strips[index]).run(worker);
  });
}

}  // namespace

void patchify_images_cpu(OpContext& context, const PatchifyImagesArgs& args) {
  if (args.mode == ResizeMode::kFloat) return run_strips<FloatArithmetic>(context, args);
#if defined(SIGLIP2_PATCHIFY_QUADS)
  // Every machine with a matrix unit has vpdpbusd, too.
  if (quad_product_method() != cpu::ProductMethod::kConversion) return run_strips<QuadArithmetic>(context, args);
#endif
  run_strips<PairArithmetic>(context, args);
}

// A copy: 24p² bytes moved for each patch. Each thread takes rows of patches.
void patchify_pixels_cpu(OpContext& context, const PatchifyPixelsArgs& args) {
  const std::int64_t patch = args.patch_size;
  const std::int64_t patch_rows = args.height / patch;
  const std::int64_t patch_columns = args.width / patch;
  const std::int64_t plane = args.height * args.width;
  cpu::parallel_for(args.images * patch_rows, context.threads, [&](std::int64_t index, int) {
    const std::int64_t image = index / patch_rows;
    float* tokens = args.output.as<float>() + index * patch_columns * args.output.stride;
    for (std::int64_t y = 0; y < patch; ++y) {
      const float* row = args.pixels + image * 3 * plane + (index % patch_rows * patch + y) * args.width;
      for (std::int64_t column = 0; column < patch_columns; ++column) {
        const float* red = row + column * patch;
        float* to = tokens + column * args.output.stride + y * patch * 3;
        for (std::int64_t x = 0; x < patch; ++x) {
          to[3 * x] = red[x];
          to[3 * x + 1] = red[x + plane];
          to[3 * x + 2] = red[x + 2 * plane];
        }
      }
    }
  });
}

}  // namespace siglip2::SIGLIP2_ISA
