// Sigmoid loss on CPUs.
//
// Plan. Images are taken in chunks of the workspace's rows, and each chunk in three products:
//
//   logits = images · textsᵀ     tasks are blocks of images by blocks of texts. Images are packed as rows of the
//                                register tile (cpu/simd/tile.h), then texts panel by panel as its columns (L1). A tile
//                                is summed in float32 over a few features at a time and beyond as pairs of
//                                float32. Its logits become losses and slopes n·g while it is in L1; slopes go to the
//                                workspace, sums stay with the task.
//   grad_images = t/n · slopes · texts          for the rows of the chunk
//   grad_texts += t/n · slopesᵀ · images        over the rows of the chunk
//
// Pairs are taken as ones that do not belong together, and a vector of them is corrected where it has some that do:
// the pair of the diagonal, or, with lists, those that a binary search in the image's list finds.
//
// The slopes are not divided by n: they are from −1 to 1, and small ones keep their digits. Blocks are cut by the
// shape alone, and their sums are added in order, so results do not depend on the threads. A task's sums are
// compensated ones, folded to double precision after each panel.
//
// Floor: 3·n·m·width multiply-adds at two vectors a cycle (n·m·width for the loss alone). Memory: the workspace, and
// for each thread some 200 rows.
#include "ops/sigmoid_loss/sigmoid_loss.h"

#include <cmath>

#include "cpu/kernels.h"
#include "cpu/simd/matrix_product.h"
#include "cpu/simd/pair.h"
#include "cpu/simd/simd_math.h"
#include "cpu/simd/tile.h"
#include "cpu/thread_pool.h"

namespace siglip2::SIGLIP2_ISA {
namespace {

constexpr std::int64_t kMostImages = 192 / kTileRows * kTileRows;  // of a task
constexpr std::int64_t kLeastTexts = 64, kMostTexts = 512;         // of a task
constexpr std::int64_t kMostTasks = 1024;                          // of a chunk: their sums are on the stack
constexpr std::int64_t kMostDepth = 384;                           // of a panel that stays in L1
constexpr std::int64_t kShortDepth = 64;                           // of sums that are no pairs, at most
constexpr std::int64_t kTileSize = kTileRows * kTileColumns;

constexpr std::int64_t smaller(std::int64_t a, std::int64_t b) {
  return a < b ? a : b;
}
constexpr std::int64_t larger(std::int64_t a, std::int64_t b) {
  return a > b ? a : b;
}

// Features that are summed in float32. The error of such a sum goes with its size, which is small where a row of unit
// length has many of them.
std::int64_t short_depth(std::int64_t width) {
  const std::int64_t depth = larger(1, smaller(kShortDepth, width / 12));
  return depth < 4 ? depth : depth / 4 * 4;
}

// logit = scale · product + bias
struct LogitMap {
  VecPair scale;
  VecPair bias;
};

VecPair broadcast_pair(double x) {
  const auto high = static_cast<float>(x);
  return {broadcast(high), broadcast(static_cast<float>(x - high))};
}

struct Block {
  std::int64_t first_image;  // of all
  std::int64_t images;
  std::int64_t first_text;
  std::int64_t texts;
};

// A worker's scratch, cut up.
struct Scratch {
  float* images;  // [⌈images/kTileRows⌉][width][kTileRows]
  float* texts;   // one panel, [width][kTileColumns]
  float* high;    // products of the panel, [⌈images/kTileRows⌉][kTileRows][kTileColumns], and what they lack
  float* low;
};

// Returns how many floats the parts take; with memory == nullptr only that.
std::int64_t divide_scratch(std::int64_t images, std::int64_t width, float* memory, Scratch& scratch) {
  std::int64_t used = 0;
  const auto take = [&](std::int64_t count) {
    float* const part = memory == nullptr ? nullptr : memory + used;
    used += divide_up(count, 16) * 16;
    return part;
  };
  const std::int64_t rows = divide_up(images, kTileRows) * kTileRows;
  scratch.images = take(rows * width + kLanes);
  scratch.texts = take(width * kTileColumns);
  scratch.high = take(rows * kTileColumns);
  scratch.low = take(rows * kTileColumns);
  return used;
}

// Texts as columns of the tile; columns that are not there are 0.
void pack_texts(const ConstMatrixView& texts, std::int64_t first, std::int64_t count, float* panel) {
  const std::int64_t width = texts.columns;
  for (int v = 0; v < kTileVectors; ++v) {
    for (std::int64_t k = 0; k < width; k += kLanes) {
      const int lanes = static_cast<int>(smaller(kLanes, width - k));
      Vec square[kLanes];
      SIGLIP2_UNROLL for (int i = 0; i < kLanes; ++i) {
        const std::int64_t text = v * kLanes + i;
        const float* const source = texts.as<float>() + (first + text) * texts.stride + k;
        square[i] = text >= count ? zero() : lanes == kLanes ? load(source) : load_first(source, lanes);
      }
      transpose(square);
      SIGLIP2_UNROLL for (int j = 0; j < kLanes; ++j) {
        if (j < lanes) store(panel + (k + j) * kTileColumns + v * kLanes, square[j]);
      }
    }
  }
}

// Products of one tile's images, from `image` on, over features [first, first + count), added to the pairs in `high`
// and `low`; the first ones overwrite them. Inlined, once for each kind of pairs: as a call it costs
// 6 % of a block of rows of 64.
SIGLIP2_INLINE void multiply_images(const Scratch& scratch, std::int64_t image, int rows, std::int64_t width,
                                    std::int64_t first, std::int64_t count) {
  float* const high = scratch.high + image * kTileColumns;
  float* const low = scratch.low + image * kTileColumns;
  alignas(64) float part[kTileSize];
  const std::int64_t depth = short_depth(width);
  for (std::int64_t k = first; k < first + count; k += depth) {
    const TileArgs args = {scratch.images + image * width + k * kTileRows,
                           scratch.texts + k * kTileColumns,
                           smaller(depth, first + count - k),
                           k == 0 ? high : part,
                           kTileColumns,
                           false};
    multiply_tile(rows, args);
    for (int i = 0; i < rows * kTileColumns; i += kLanes) {
      const VecPair sum =
          k == 0 ? VecPair{load(high + i), zero()} : add({load(high + i), load(low + i)}, load(part + i));
      store(high + i, sum.high);
      store(low + i, sum.low);
    }
  }
}

// Which of an image's pairs with kLanes texts belong together: that of image i and text i.
struct DiagonalPairs {
  struct Lanes {
    std::int64_t match;  // outside the lanes: none

    bool any() const { return match >= 0 && match < kLanes; }
    Vec choose(Vec positive, Vec negative) const {
      const int lane = static_cast<int>(match);
      return select_first(lane, negative, select_first(lane + 1, positive, negative));
    }
  };

  Lanes lanes(std::int64_t image, std::int64_t text) const { return {image - text}; }
};

// Those in lists.
struct ListedPairs {
  PositivePairs lists;

  struct Lanes {
    float signs[kLanes];  // −1 where a pair belongs together, else 0
    bool found;

    bool any() const { return found; }
    Vec choose(Vec positive, Vec negative) const { return select_negative(load(signs), positive, negative); }
  };

  Lanes lanes(std::int64_t image, std::int64_t text) const {
    std::int32_t first = lists.offsets[image], last = lists.offsets[image + 1];
    const std::int32_t end = last;
    while (first < last) {
      const std::int32_t middle = first + (last - first) / 2;
      if (lists.texts[middle] < text) {
        first = middle + 1;
      } else {
        last = middle;
      }
    }
    Lanes lanes = {};
    for (; first < end && lists.texts[first] < text + kLanes; ++first) {
      lanes.signs[lists.texts[first] - text] = -1;
      lanes.found = true;
    }
    return lanes;
  }
};

// What every pair of an image and a text contributes: its loss, n·∂loss/∂logit, and that times the product of the two.
struct Contribution {
  Vec loss;
  Vec slope;
  Vec scaled;
};

template <typename Lanes>
SIGLIP2_INLINE Contribution contribution_of(VecPair product, const LogitMap& map, const Lanes& positives) {
  const VecPair logit = add(multiply(map.scale, product), map.bias);
  const Vec opposite = zero() - logit.high;
  const Vec low = select_negative(logit.high, zero() - logit.low, logit.low);
  // u = e^−|l|, from which softplus(±l) = max(±l, 0) + log(1 + u) and σ(±l) = 1/(1 + u) or u/(1 + u).
  Vec u = exp(min(logit.high, opposite));
  u = u - u * low;
  const Vec denominator = u + broadcast(1.0f);
  const Vec more = broadcast(1.0f) / denominator, less = u / denominator;
  const Vec log = log1p_fraction(u);
  Contribution result;
  result.loss = max(logit.high, zero()) + log;
  result.slope = select_negative(logit.high, less, more);
  if (positives.any()) {
    result.loss = positives.choose(max(opposite, zero()) + log, result.loss);
    result.slope = positives.choose(zero() - select_negative(logit.high, more, less), result.slope);
  }
  result.scaled = result.slope * product.high;
  return result;
}

struct Sums {
  VecPair loss{zero(), zero()};
  VecPair slope{zero(), zero()};
  VecPair scaled{zero(), zero()};
};

// A finished tile of products: slopes to the workspace, contributions to the sums.
template <typename Pairs>
void finish_tile(const SigmoidLossArgs& args, const Pairs& pairs, const LogitMap& map, const float* high,
                 const float* low, std::int64_t first_image, std::int64_t rows, std::int64_t first_text, float* slopes,
                 Sums& sums) {
  for (int v = 0; v < kTileVectors; ++v) {
    const std::int64_t text = first_text + v * kLanes;
    const std::int64_t left = args.texts.rows - text;
    if (left <= 0) return;
    const int lanes = static_cast<int>(smaller(left, kLanes));
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int64_t at = i * kTileColumns + v * kLanes;
      Contribution value = contribution_of({load(high + at), load(low + at)}, map, pairs.lanes(first_image + i, text));
      if (lanes < kLanes) {
        value = {select_first(lanes, value.loss, zero()), select_first(lanes, value.slope, zero()),
                 select_first(lanes, value.scaled, zero())};
      }
      sums.loss = add(sums.loss, value.loss);
      sums.slope = add(sums.slope, value.slope);
      sums.scaled = add(sums.scaled, value.scaled);
      if (slopes == nullptr) continue;
      float* const target = slopes + i * args.workspace.stride + text;
      if (lanes == kLanes) {
        store(target, value.slope);
      } else {
        store_first(target, value.slope, lanes);
      }
    }
  }
}

// Logits of a block. `slopes` is the workspace's row of the block's first image, or nullptr. Returns the sums of the
// contributions.
template <typename Pairs>
SigmoidLossResult run_block(const SigmoidLossArgs& args, const Pairs& pairs, const Block& block, float* slopes,
                            const Scratch& scratch) {
  const std::int64_t width = args.images.columns;
  pack_rows(args.images.as<float>() + block.first_image * args.images.stride, args.images.stride, block.images, width,
            scratch.images);
  const LogitMap map = {broadcast_pair(std::exp(args.logit_scale)), broadcast_pair(args.logit_bias)};
  SigmoidLossResult total;
  for (std::int64_t text = 0; text < block.texts; text += kTileColumns) {
    const std::int64_t first_text = block.first_text + text;
    pack_texts(args.texts, first_text, smaller(kTileColumns, block.texts - text), scratch.texts);
    Sums sums;
    for (std::int64_t first = 0; first < width; first += kMostDepth) {
      const std::int64_t count = smaller(kMostDepth, width - first);
      for (std::int64_t i = 0; i < block.images; i += kTileRows) {
        const std::int64_t rows = smaller(kTileRows, block.images - i);
        multiply_images(scratch, i, static_cast<int>(rows), width, first, count);
        if (first + count < width) continue;
        finish_tile(args, pairs, map, scratch.high + i * kTileColumns, scratch.low + i * kTileColumns,
                    block.first_image + i, rows, first_text,
                    slopes == nullptr ? nullptr : slopes + i * args.workspace.stride, sums);
      }
    }
    total.loss += sum_of_lanes(sums.loss);
    total.grad_logit_scale += sum_of_lanes(sums.scaled);
    total.grad_logit_bias += sum_of_lanes(sums.slope);
  }
  return total;
}

// Logits of `images` images from `first` on.
void run_chunk(const SigmoidLossArgs& args, std::int64_t first, std::int64_t images, int threads) {
  const std::int64_t m = args.texts.rows, width = args.texts.columns;
  const std::int64_t image_blocks = divide_up(images, kMostImages);
  const std::int64_t block_images = divide_up(divide_up(images, image_blocks), kTileRows) * kTileRows;
  const std::int64_t wanted = larger(kLeastTexts, smaller(kMostTexts, m / 32));
  const std::int64_t block_texts =
      divide_up(larger(wanted, divide_up(m, kMostTasks / image_blocks)), kTileColumns) * kTileColumns;
  const std::int64_t text_blocks = divide_up(m, block_texts);
  Scratch sizes;
  const auto bytes = static_cast<std::size_t>(divide_scratch(block_images, width, nullptr, sizes)) * sizeof(float);

  SigmoidLossResult totals[kMostTasks];
  cpu::parallel_for(image_blocks * text_blocks, threads, [&](std::int64_t index, int worker) {
    const std::int64_t image = index / text_blocks * block_images, text = index % text_blocks * block_texts;
    const Block block = {first + image, smaller(block_images, images - image), text, smaller(block_texts, m - text)};
    Scratch scratch;
    divide_scratch(block_images, width, static_cast<float*>(cpu::worker_scratch(worker, bytes)), scratch);
    float* const slopes =
        args.grad_images.data == nullptr ? nullptr : args.workspace.as<float>() + image * args.workspace.stride;
    totals[index] = args.positives.offsets == nullptr
                        ? run_block(args, DiagonalPairs{}, block, slopes, scratch)
                        : run_block(args, ListedPairs{args.positives}, block, slopes, scratch);
  });
  for (std::int64_t index = 0; index < image_blocks * text_blocks; ++index) {
    args.result->loss += totals[index].loss;
    args.result->grad_logit_scale += totals[index].grad_logit_scale;
    args.result->grad_logit_bias += totals[index].grad_logit_bias;
  }
}

}  // namespace

void sigmoid_loss_cpu(OpContext& context, const SigmoidLossArgs& args) {
  const std::int64_t n = args.images.rows, m = args.texts.rows, width = args.images.columns;
  const std::int64_t chunk = sigmoid_loss_workspace_rows(n, m);
  const bool gradients = args.grad_images.data != nullptr;
  const double count = static_cast<double>(n), scale = std::exp(args.logit_scale);
  const auto factor = static_cast<float>(scale / count);
  const float* const slopes = args.workspace.as<float>();
  *args.result = {};
  for (std::int64_t first = 0; first < n; first += chunk) {
    const std::int64_t images = smaller(chunk, n - first);
    run_chunk(args, first, images, context.threads);
    if (!gradients) continue;
    const MatrixView grad_images = args.grad_images.slice_rows(first, images);
    const Operand slope_rows(slopes, args.workspace.stride);
    multiply_matrices(
        {slope_rows, false, args.texts, images, width, m, factor, grad_images.as<float>(), grad_images.stride, false},
        context.threads);
    multiply_matrices({slope_rows, true, args.images.slice_rows(first, images), m, width, images, factor,
                       args.grad_texts.as<float>(), args.grad_texts.stride, first > 0},
                      context.threads);
  }
  args.result->loss /= count;
  args.result->grad_logit_scale = gradients ? scale * args.result->grad_logit_scale / count : 0;
  args.result->grad_logit_bias = gradients ? args.result->grad_logit_bias / count : 0;
}

}  // namespace siglip2::SIGLIP2_ISA
