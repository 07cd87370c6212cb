// The kernels of patchify_images; floor and plan are in patchify_cuda.cu.
#pragma once

#include "cuda/prim/barrier.h"
#include "cuda/prim/bfloat16.h"
#include "cuda/prim/bounds.h"
#include "cuda/prim/bytes.h"
#include "cuda/prim/shared_memory.h"
#include "cuda/prim/vector.h"
#include "cuda/prim/warp.h"
#include "ops/patchify/patchify_jobs.h"

namespace siglip2::cuda {
namespace {

constexpr int kPatchifyThreads = 128;
// Blocks that shared memory lets onto an SM: registers need not be saved for more.
constexpr int kPatchifyBlocks = 4;
constexpr int kWordsPerVector = 4;

// Pillow's arithmetic: bytes between and after the passes. A product with a weight of 22 bits is three products with
// its bytes, of four positions in one instruction; modulo 2^32 they add up to the exact sum, which fits.
struct ByteArithmetic {
  using Rows = std::uint32_t;  // one value of four rows
  using Weight = std::uint32_t;

  struct Sum {
    std::uint32_t low = 0;
    std::uint32_t middle = 0;
    std::uint32_t high = 0;

    __device__ __forceinline__ void add(std::uint32_t bytes, const Vector<Weight, kGroup>& weights) {
      low = dot_bytes(bytes, weights[0], low);
      middle = dot_bytes(bytes, weights[1], middle);
      high = dot_bytes_signed(bytes, weights[2], high);
    }
    __device__ __forceinline__ std::uint32_t total() const { return low + (middle << 8) + (high << 16); }
    __device__ __forceinline__ void add_total(std::uint32_t total) { low += total; }
  };

  static __device__ __forceinline__ std::uint32_t to_byte(std::uint32_t total) {
    const std::int32_t rounded = static_cast<std::int32_t>(total + (1u << (kWeightBits - 1))) >> kWeightBits;
    return static_cast<std::uint32_t>(rounded < 0 ? 0 : rounded > 255 ? 255 : rounded);
  }
  static __device__ __forceinline__ Rows pack(const Sum (&rows)[kGroup]) {
    return to_byte(rows[0].total()) | to_byte(rows[1].total()) << 8 | to_byte(rows[2].total()) << 16 |
           to_byte(rows[3].total()) << 24;
  }
  // Adds four rows of kValues neighbouring values.
  template <int kValues>
  static __device__ __forceinline__ void add_rows(Sum (&sums)[kValues], const Rows* rows,
                                                  const Vector<Weight, kGroup>& weights) {
    constexpr int kAccess = kValues < kWordsPerVector ? kValues : kWordsPerVector;
#pragma unroll
    for (int i = 0; i < kValues; i += kAccess) {
      const auto part = load_vector<kAccess>(rows + i);
#pragma unroll
      for (int j = 0; j < kAccess; ++j)
        sums[i + j].add(part[j], weights);
    }
  }
  static __device__ __forceinline__ float normalize(const Sum& sum, const float* normalization, int channel) {
    return normalization[channel * 256 + static_cast<int>(to_byte(sum.total()))];
  }
};

// float32 without rounding.
struct FloatArithmetic {
  using Rows = Vector<float, kGroup>;
  using Weight = float;

  struct Sum {
    float sum = 0.0f;

    __device__ __forceinline__ void add(std::uint32_t bytes, const Vector<Weight, kGroup>& weights) {
#pragma unroll
      for (int i = 0; i < kGroup; ++i)
        sum += static_cast<float>(bytes >> (8 * i) & 0xFF) * weights[i];
    }
    __device__ __forceinline__ void add(const Rows& rows, const Vector<Weight, kGroup>& weights) {
#pragma unroll
      for (int i = 0; i < kGroup; ++i)
        sum += rows[i] * weights[i];
    }
    __device__ __forceinline__ float total() const { return sum; }
    __device__ __forceinline__ void add_total(float total) { sum += total; }
  };

  static __device__ __forceinline__ Rows pack(const Sum (&rows)[kGroup]) {
    return {{rows[0].sum, rows[1].sum, rows[2].sum, rows[3].sum}};
  }
  template <int kValues>
  static __device__ __forceinline__ void add_rows(Sum (&sums)[kValues], const Rows* rows,
                                                  const Vector<Weight, kGroup>& weights) {
#pragma unroll
    for (int i = 0; i < kValues; ++i)
      sums[i].add(load_vector<kGroup>(rows[i].values), weights);
  }
  static __device__ __forceinline__ float normalize(const Sum& sum, const float* normalization, int channel) {
    return sum.sum * normalization[channel] + normalization[3 + channel];
  }
};

template <typename Arithmetic>
__device__ __forceinline__ Vector<typename Arithmetic::Weight, kGroup> load_weights(const PatchifyWeights* weights) {
  return load_vector<kGroup>(reinterpret_cast<const typename Arithmetic::Weight*>(weights));
}

// What the threads of a block know of its work.
struct PatchifyTile {
  const unsigned char* pixels;  // of the image
  std::int64_t bytes;
  std::int64_t row_bytes;
  std::int64_t first_byte;  // of a row, where the tile's source columns begin
  int first_group;          // the same in groups of pixels
  int height;               // of the source
  int columns;
  int staged_vectors;
  int ring_groups;
  int values;  // of one row in the ring
  // Distances in it, of columns and of channels: values lie as the output has them.
  int column_step;
  int channel_step;

  __device__ __forceinline__ std::int64_t row_start(int row) const {
    return (row < height ? row : height - 1) * row_bytes + first_byte;
  }
};

// Source rows of groups [first, first + groups), from the tile's first column on, into shared memory. Rows begin at any
// byte of the image. Here they are moved to whole words, so that a row begins with one of the first four words of its
// first vector: the same word as in global memory. Behind the image stand zeros, rows below it repeat its last.
__device__ __forceinline__ void stage_rows(const PatchifyTile& tile, int first, int groups, std::uint32_t* staged) {
  const int vectors = groups * kGroup * tile.staged_vectors;
  for (int vector = static_cast<int>(threadIdx.x); vector < vectors; vector += kPatchifyThreads) {
    const std::int64_t start = tile.row_start(first * kGroup + vector / tile.staged_vectors);
    const std::int64_t offset = (start & ~std::int64_t{15}) + vector % tile.staged_vectors * 16;
    std::uint32_t words[kWordsPerVector + 1];
    if (in_bounds(offset + 20 <= tile.bytes)) {
      const auto* const from = reinterpret_cast<const std::uint32_t*>(tile.pixels + offset);
      const auto aligned = load_vector<kWordsPerVector>(from);
#pragma unroll
      for (int i = 0; i < kWordsPerVector; ++i)
        words[i] = aligned[i];
      words[kWordsPerVector] = from[kWordsPerVector];
    } else {
#pragma unroll
      for (int i = 0; i <= kWordsPerVector; ++i) {
        words[i] = 0;
#pragma unroll
        for (int byte = 0; byte < 4; ++byte) {
          if (in_bounds(offset + 4 * i + byte < tile.bytes))
            words[i] |= std::uint32_t{tile.pixels[offset + 4 * i + byte]} << (8 * byte);
        }
      }
    }
    const auto bits = static_cast<std::uint32_t>(start & 3) * 8;
    Vector<std::uint32_t, kWordsPerVector> moved;
#pragma unroll
    for (int i = 0; i < kWordsPerVector; ++i)
      moved[i] = shift_words(words[i], words[i + 1], bits);
    store_vector(staged + std::int64_t{vector} * kWordsPerVector, moved);
  }
}

// Four neighbouring pixels → their bytes by colour. Grey stands for all three, alpha is dropped.
template <int kChannels>
inline constexpr int kColours = kChannels < 3 ? 1 : 3;

template <int kChannels>
__device__ __forceinline__ void split_colours(const std::uint32_t (&words)[kChannels],
                                              std::uint32_t (&colours)[kColours<kChannels>]) {
  if constexpr (kChannels == 1) colours[0] = words[0];
  if constexpr (kChannels == 2) colours[0] = permute_bytes(words[0], words[1], 0x6420);
  if constexpr (kChannels == 3) {
    colours[0] = permute_bytes(permute_bytes(words[0], words[1], 0x0630), words[2], 0x5210);
    colours[1] = permute_bytes(permute_bytes(words[0], words[1], 0x0741), words[2], 0x6210);
    colours[2] = permute_bytes(permute_bytes(words[0], words[1], 0x0052), words[2], 0x7410);
  }
  if constexpr (kChannels == 4) {
    const std::uint32_t first = permute_bytes(words[0], words[1], 0x5140);
    const std::uint32_t second = permute_bytes(words[2], words[3], 0x5140);
    colours[0] = permute_bytes(first, second, 0x5410);
    colours[1] = permute_bytes(first, second, 0x7632);
    colours[2] =
        permute_bytes(permute_bytes(words[0], words[1], 0x0062), permute_bytes(words[2], words[3], 0x0062), 0x5410);
  }
}

// Staged rows of groups [first, first + groups) → the ring.
template <typename Arithmetic, int kChannels>
__device__ __forceinline__ void filter_columns(const PatchifyTile& tile, int first, int groups,
                                               const PatchifyTaps* taps, const PatchifyWeights* weights,
                                               const std::uint32_t* staged, typename Arithmetic::Rows* ring) {
  for (int task = static_cast<int>(threadIdx.x); task < groups * tile.columns; task += kPatchifyThreads) {
    const int group = task / tile.columns;
    const int column = task % tile.columns;
    const PatchifyTaps& tap = taps[column];
    const std::uint32_t* rows[kGroup];
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {
      const int word = static_cast<int>(tile.row_start((first + group) * kGroup + i) & 15) / 4;
      rows[i] = staged + (group * kGroup + i) * tile.staged_vectors * kWordsPerVector + word +
                (tap.first - tile.first_group) * kChannels;
    }
    typename Arithmetic::Sum sums[kColours<kChannels>][kGroup];
    const int count = tap.groups;
    const PatchifyWeights* weight = weights + tap.weights;
    for (int i = 0; i < count; ++i, ++weight) {
      const auto four = load_weights<Arithmetic>(weight);
#pragma unroll
      for (int row = 0; row < kGroup; ++row) {
        std::uint32_t words[kChannels];
#pragma unroll
        for (int word = 0; word < kChannels; ++word)
          words[word] = rows[row][i * kChannels + word];
        std::uint32_t colours[kColours<kChannels>];
        split_colours<kChannels>(words, colours);
#pragma unroll
        for (int colour = 0; colour < kColours<kChannels>; ++colour)
          sums[colour][row].add(colours[colour], four);
      }
    }
    typename Arithmetic::Rows* const to =
        ring + (first + group) % tile.ring_groups * tile.values + column * tile.column_step;
#pragma unroll
    for (int channel = 0; channel < 3; ++channel)
      to[channel * tile.channel_step] = Arithmetic::pack(sums[kColours<kChannels> == 1 ? 0 : channel]);
  }
}

// Where values of the output go.
template <typename T>
struct PatchifyOutput {
  T* values;
  std::int64_t stride;
  int patch_size;  // 0: planes

  // Of value `value` of the image's row `row`: for patches, values of a row are its pixels' colours in order.
  __device__ __forceinline__ T* patch_value(std::int64_t first_output_row, int width, int row, int value) const {
    const int patch_row = 3 * patch_size;
    const std::int64_t token =
        first_output_row + std::int64_t{row / patch_size} * (width / patch_size) + value / patch_row;
    return values + token * stride + std::int64_t{row % patch_size} * patch_row + value % patch_row;
  }
  __device__ __forceinline__ T* plane_value(std::int64_t output_row, int width, int height, int channel, int row,
                                            int column) const {
    return values + output_row * stride + (std::int64_t{channel} * height + row) * width + column;
  }
};

template <typename Arithmetic, typename T, int kValues>
__global__ void __launch_bounds__(kPatchifyThreads, kPatchifyBlocks)
    patchify_strips_kernel(const unsigned char* pixels, const PatchifyImage* images, const PatchifyJob* jobs,
                           const PatchifyTaps* taps, const PatchifyWeights* weights, const float* normalization_source,
                           PatchifyOutput<T> output) {
  const PatchifyJob& job = jobs[blockIdx.x];
  const PatchifyImage& image = images[job.image];
  const int first_column = job.first_column;
  const int channels = image.channels;
  const PatchifyTaps* const horizontal = taps + image.horizontal + first_column;
  const PatchifyTaps* const vertical = taps + image.vertical;
  PatchifyTile tile;
  tile.pixels = pixels + image.pixels;
  tile.bytes = image.bytes;
  tile.row_bytes = image.row_bytes;
  tile.first_group = horizontal->first;
  tile.first_byte = std::int64_t{tile.first_group} * kGroup * channels;
  tile.height = image.height;
  tile.columns = job.columns;
  tile.staged_vectors = image.staged_vectors;
  tile.ring_groups = image.ring_groups;
  tile.values = 3 * tile.columns;
  tile.column_step = output.patch_size == 0 ? 1 : 3;
  tile.channel_step = output.patch_size == 0 ? tile.columns : 1;

  float* const normalization = reinterpret_cast<float*>(shared_memory());
  auto* const staged = reinterpret_cast<std::uint32_t*>(normalization + kNormalizationFloats);
  auto* const ring = reinterpret_cast<typename Arithmetic::Rows*>(staged + image.staged_groups * kGroup *
                                                                               tile.staged_vectors * kWordsPerVector);
  for (int i = static_cast<int>(threadIdx.x); i < kNormalizationFloats; i += kPatchifyThreads)
    normalization[i] = normalization_source[i];

  const int staged_groups = image.staged_groups;
  const int rows_per_step = image.rows_per_step;
  const int width = image.output_width;
  const int height = image.output_height;
  const std::int64_t output_row = image.output_row;
  const int end_row = job.first_row + job.rows;
  const int vectors = tile.values / kValues;
  int filled = vertical[job.first_row].first;
  for (int first_row = job.first_row; first_row < end_row; first_row += rows_per_step) {
    const int rows = end_row - first_row < rows_per_step ? end_row - first_row : rows_per_step;
    const PatchifyTaps& last = vertical[first_row + rows - 1];
    const int needed = last.first + last.groups;
    while (filled < needed) {
      const int groups = needed - filled < staged_groups ? needed - filled : staged_groups;
      stage_rows(tile, filled, groups, staged);
      block_barrier();  // also: the last step's rows have been read from the ring
      if (channels == 3) {
        filter_columns<Arithmetic, 3>(tile, filled, groups, horizontal, weights, staged, ring);
      } else if (channels == 4) {
        filter_columns<Arithmetic, 4>(tile, filled, groups, horizontal, weights, staged, ring);
      } else if (channels == 2) {
        filter_columns<Arithmetic, 2>(tile, filled, groups, horizontal, weights, staged, ring);
      } else {
        filter_columns<Arithmetic, 1>(tile, filled, groups, horizontal, weights, staged, ring);
      }
      block_barrier();
      filled += groups;
    }
    for (int task = static_cast<int>(threadIdx.x); task < rows * vectors; task += kPatchifyThreads) {
      const int row = first_row + task / vectors;
      const int value = task % vectors * kValues;
      const PatchifyTaps& tap = vertical[row];
      typename Arithmetic::Sum sums[kValues];
      int slot = tap.first % tile.ring_groups;
      const int count = tap.groups;
      const PatchifyWeights* weight = weights + tap.weights;
      for (int i = 0; i < count; ++i, ++weight) {
        Arithmetic::template add_rows<kValues>(sums, ring + slot * tile.values + value,
                                               load_weights<Arithmetic>(weight));
        slot = slot + 1 == tile.ring_groups ? 0 : slot + 1;
      }
      int channel = output.patch_size == 0 ? value / tile.columns : value % 3;
      T* const to = output.patch_size == 0 ? output.plane_value(output_row, width, height, channel, row,
                                                                first_column + value % tile.columns)
                                           : output.patch_value(output_row, width, row, 3 * first_column + value);
      Vector<T, kValues> result;
#pragma unroll
      for (int i = 0; i < kValues; ++i) {
        result[i] = from_float<T>(Arithmetic::normalize(sums[i], normalization, channel));
        if (output.patch_size != 0) channel = channel == 2 ? 0 : channel + 1;
      }
      store_vector(to, result);
    }
  }
}

// The same for images shrunk so far that a filter does not fit shared memory: a warp makes one pixel at a time, its
// lanes taking groups of each row in turn. Rows that two pixels draw on are filtered twice.
template <typename Arithmetic, typename T>
__global__ void __launch_bounds__(kPatchifyThreads, kPatchifyBlocks)
    patchify_far_kernel(const unsigned char* pixels, const PatchifyImage* images, const PatchifyJob* jobs,
                        const PatchifyTaps* taps, const PatchifyWeights* weights, const float* normalization,
                        PatchifyOutput<T> output) {
  const PatchifyJob& job = jobs[blockIdx.x];
  const PatchifyImage& image = images[job.image];
  const int row = job.first_row;
  const int channels = image.channels;
  const int colours = channels < 3 ? 1 : 3;
  const PatchifyTaps& vertical = taps[image.vertical + row];
  for (int i = warp_index(); i < job.columns; i += kPatchifyThreads / kWarpSize) {
    const int column = job.first_column + i;
    const PatchifyTaps& horizontal = taps[image.horizontal + column];
    typename Arithmetic::Sum colour_sums[3];
    for (int group = 0; group < vertical.groups; ++group) {
      typename Arithmetic::Sum row_sums[3][kGroup];
#pragma unroll
      for (int k = 0; k < kGroup; ++k) {
        const int source_row = (vertical.first + group) * kGroup + k;
        const unsigned char* const from =
            pixels + image.pixels +
            (in_bounds(source_row < image.height) ? source_row : image.height - 1) * image.row_bytes;
        typename Arithmetic::Sum sums[3];
        for (int part = lane_index(); part < horizontal.groups; part += kWarpSize) {
          const auto four = load_weights<Arithmetic>(weights + horizontal.weights + part);
          const int pixel = (horizontal.first + part) * kGroup;
#pragma unroll
          for (int colour = 0; colour < 3; ++colour) {
            const bool has_colour = in_bounds(colour < colours);
            std::uint32_t bytes = 0;
#pragma unroll
            for (int j = 0; j < kGroup; ++j) {
              if (has_colour && in_bounds(pixel + j < image.width))
                bytes |= std::uint32_t{from[std::int64_t{pixel + j} * channels + colour]} << (8 * j);
            }
            sums[colour].add(bytes, four);
          }
        }
#pragma unroll
        for (int colour = 0; colour < 3; ++colour)
          row_sums[colour][k].add_total(warp_sum(sums[colour].total()));
      }
      const auto four = load_weights<Arithmetic>(weights + vertical.weights + group);
#pragma unroll
      for (int colour = 0; colour < 3; ++colour)
        colour_sums[colour].add(Arithmetic::pack(row_sums[colour]), four);
    }
    if (lane_index() == 0) {
#pragma unroll
      for (int channel = 0; channel < 3; ++channel) {
        T* const to =
            output.patch_size == 0
                ? output.plane_value(image.output_row, image.output_width, image.output_height, channel, row, column)
                : output.patch_value(image.output_row, image.output_width, row, 3 * column + channel);
        auto sum = colour_sums[channel];
        if (colours == 1) sum = colour_sums[0];
        *to = from_float<T>(Arithmetic::normalize(sum, normalization, channel));
      }
    }
  }
}

}  // namespace
}  // namespace siglip2::cuda
