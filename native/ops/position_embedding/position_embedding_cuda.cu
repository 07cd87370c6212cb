// Resized position embeddings on GPUs.
//
// Floor: one read and one write of the tokens; the table (16 × 16 · 768 float32 is 0.8 MB) stays in the L2. 256 images
// of 256 patches, width 768, bfloat16: 201 MB, 61 µs of an H100's 3.3 TB/s. Per token and feature, four multiply-adds
// where the table is enlarged.
//
// Plan: a block adds to one row of an image's grid. A thread takes four neighbouring features of one token at a time
// and draws on all table entries of the token itself: for enlarged tables those are four, of which neighbouring tokens
// find most in the L1, so that a separate vertical pass would save little. Weights are computed on the host, once for
// each pair of table size and grid size.
//
// Backward. Floor: one read of grad_tokens.
//
// Plan: gather, so that nothing is added by two threads: a thread takes four features of one entry of the table and
// sums over the tokens that drew on it, image by image, row by row. The host turns the weights round: for each entry of
// an axis the outputs that draw on it, which are neighbours. Where the table alone makes too few threads, images are
// dealt out in chunks, whose sums (with their rounding errors: see cuda/compensated_sum.h) go to scratch memory; a
// second kernel adds them in order. The number of chunks follows from the shapes alone. A token is read by about four
// entries' threads, three times from the L2.
#include "ops/position_embedding/position_embedding.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "cuda/activations.h"
#include "cuda/compensated_sum.h"
#include "cuda/dtype_switch.h"
#include "cuda/kernels.h"
#include "cuda/prim/bounds.h"
#include "cuda/prim/launch.h"
#include "cuda/table_pack.h"
#include "ops/position_embedding/position_taps.h"

namespace siglip2::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kFeatures = 4;  // of one thread
// Backward: threads that are enough to hide memory's latency on any chip, and chunks at most.
constexpr std::int64_t kManyThreads = std::int64_t{1} << 18;
constexpr std::int64_t kMostChunks = 1024;

std::int64_t divide_up(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

// Positions [first, first + count) of the other side of a resize, with weights from index `weights` on.
struct Link {
  std::int32_t first;
  std::int32_t count;
  std::int64_t weights;
};

// Links of all axes that a call needs, each computed once.
struct Links {
  std::vector<Link> links;
  std::vector<float> weights;
  std::map<std::pair<std::int64_t, std::int64_t>, std::int32_t> axes;

  // Index of the first link of an axis: of its outputs, to entries of the table.
  std::int32_t add_forward(std::int64_t table_size, std::int64_t outputs) {
    const auto [axis, is_new] = axes.try_emplace({table_size, outputs}, static_cast<std::int32_t>(links.size()));
    if (!is_new) return axis->second;
    std::vector<float> buffer(static_cast<std::size_t>(most_position_taps(table_size, outputs)));
    for (std::int64_t output = 0; output < outputs; ++output) {
      const PositionTaps taps = position_taps(table_size, outputs, output, buffer.data());
      links.push_back({static_cast<std::int32_t>(taps.first), static_cast<std::int32_t>(taps.count),
                       static_cast<std::int64_t>(weights.size())});
      weights.insert(weights.end(), taps.weights, taps.weights + taps.count);
    }
    return axis->second;
  }

  // The same of entries of the table, to outputs. Outputs that draw on an entry are neighbours, because neither end of
  // the entries of an output falls from one output to the next.
  std::int32_t add_backward(std::int64_t table_size, std::int64_t outputs) {
    const auto [axis, is_new] = axes.try_emplace({table_size, outputs}, static_cast<std::int32_t>(links.size()));
    if (!is_new) return axis->second;
    std::vector<float> buffer(static_cast<std::size_t>(most_position_taps(table_size, outputs)));
    std::vector<std::vector<float>> of_entry(static_cast<std::size_t>(table_size));
    std::vector<std::int32_t> first(static_cast<std::size_t>(table_size));
    for (std::int64_t output = 0; output < outputs; ++output) {
      const PositionTaps taps = position_taps(table_size, outputs, output, buffer.data());
      for (std::int64_t tap = 0; tap < taps.count; ++tap) {
        const auto entry = static_cast<std::size_t>(taps.first + tap);
        if (of_entry[entry].empty()) first[entry] = static_cast<std::int32_t>(output);
        of_entry[entry].push_back(taps.weights[tap]);
      }
    }
    for (std::size_t entry = 0; entry < of_entry.size(); ++entry) {
      links.push_back(
          {first[entry], static_cast<std::int32_t>(of_entry[entry].size()), static_cast<std::int64_t>(weights.size())});
      weights.insert(weights.end(), of_entry[entry].begin(), of_entry[entry].end());
    }
    return axis->second;
  }
};

// One row of an image's grid.
struct GridRow {
  std::int64_t first_token;
  std::int32_t columns;
  std::int32_t vertical;    // index of the row's link
  std::int32_t horizontal;  // index of the first column's
};

template <typename T, int kCount>
__global__ void __launch_bounds__(kThreads)
    position_embedding_kernel(const GridRow* grid_rows, const Link* links, const float* weights, const float* table,
                              int table_columns, T* tokens, std::int64_t stride, int width) {
  const GridRow& row = grid_rows[blockIdx.x];
  const Link& vertical = links[row.vertical];
  const int vectors = width / kCount;
  for (std::int64_t task = threadIdx.x; task < std::int64_t{row.columns} * vectors; task += kThreads) {
    const auto column = static_cast<int>(task / vectors);
    const int feature = static_cast<int>(task % vectors) * kCount;
    const Link& horizontal = links[row.horizontal + column];
    float sums[kCount] = {};
    for (int y = 0; y < vertical.count; ++y) {
      const float* entry =
          table + (std::int64_t{vertical.first + y} * table_columns + horizontal.first) * width + feature;
      float row_sums[kCount] = {};
      for (int x = 0; x < horizontal.count; ++x, entry += width) {
        float values[kCount];
        load_floats(entry, values);
        const float weight = weights[horizontal.weights + x];
#pragma unroll
        for (int i = 0; i < kCount; ++i)
          row_sums[i] += weight * values[i];
      }
      const float weight = weights[vertical.weights + y];
#pragma unroll
      for (int i = 0; i < kCount; ++i)
        sums[i] += weight * row_sums[i];
    }
    T* const token = tokens + (row.first_token + column) * stride + feature;
    float values[kCount];
    load_floats(token, values);
#pragma unroll
    for (int i = 0; i < kCount; ++i)
      values[i] += sums[i];
    store_floats(token, values);
  }
}

struct GridImage {
  std::int64_t first_token;
  std::int32_t columns;
  std::int32_t vertical;    // index of the first table row's link
  std::int32_t horizontal;  // index of the first table column's
};

// Images [chunk · images_per_chunk, …) into partial sums [chunks, 2, table_rows · table_columns · width], sums and what
// they lack. Chunks are blocks in y.
template <typename T, int kCount>
__global__ void __launch_bounds__(kThreads, 4)
    gather_positions_kernel(const GridImage* images, int image_count, int images_per_chunk, const Link* links,
                            const float* weights, const T* tokens, std::int64_t stride, int table_columns,
                            std::int64_t entries, int width, float* partial) {
  const int vectors = width / kCount;
  const std::int64_t task = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (!in_bounds(task < entries * vectors)) return;
  const std::int64_t entry = task / vectors;
  const int feature = static_cast<int>(task % vectors) * kCount;
  const auto table_row = static_cast<int>(entry / table_columns);
  const auto table_column = static_cast<int>(entry % table_columns);
  const int first_image = static_cast<int>(blockIdx.y) * images_per_chunk;
  const int end_image = first_image + images_per_chunk < image_count ? first_image + images_per_chunk : image_count;
  CompensatedSum sums[kCount];
  for (int i = first_image; i < end_image; ++i) {
    const GridImage& image = images[i];
    const Link vertical = links[image.vertical + table_row];
    const Link horizontal = links[image.horizontal + table_column];
    for (int y = 0; y < vertical.count; ++y) {
      const float row_weight = weights[vertical.weights + y];
      const T* token =
          tokens + (image.first_token + std::int64_t{vertical.first + y} * image.columns + horizontal.first) * stride +
          feature;
      for (int x = 0; x < horizontal.count; ++x, token += stride) {
        const float weight = row_weight * weights[horizontal.weights + x];
        float values[kCount];
        load_floats(token, values);
#pragma unroll
        for (int j = 0; j < kCount; ++j)
          sums[j].add(weight * values[j]);
      }
    }
  }
  float* const to = partial + (std::int64_t{blockIdx.y} * 2 * entries + entry) * width + feature;
  float values[kCount];
  float errors[kCount];
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    values[i] = sums[i].sum;
    errors[i] = sums[i].low;
  }
  store_floats(to, values);
  store_floats(to + entries * width, errors);
}

// gradient += the partial sums of all chunks, in order.
template <int kCount>
__global__ void __launch_bounds__(kThreads)
    combine_positions_kernel(const float* partial, int chunks, std::int64_t floats, float* gradient) {
  const std::int64_t first = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) * kCount;
  if (!in_bounds(first < floats)) return;
  CompensatedSum sums[kCount];
  float values[kCount];
  load_floats(gradient + first, values);
#pragma unroll
  for (int i = 0; i < kCount; ++i)
    sums[i].add(values[i]);
  for (int part = 0; part < 2 * chunks; ++part) {
    load_floats(partial + part * floats + first, values);
#pragma unroll
    for (int i = 0; i < kCount; ++i)
      sums[i].add(values[i]);
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i)
    values[i] = sums[i].sum + sums[i].low;
  store_floats(gradient + first, values);
}

template <typename T, int kCount>
void add_positions(OpContext& context, const PositionEmbeddingArgs& args) {
  Links links;
  std::vector<GridRow> grid_rows;
  std::int64_t token = 0;
  for (std::int64_t image = 0; image < args.images; ++image) {
    const std::int32_t rows = args.spatial_shapes[2 * image];
    const std::int32_t columns = args.spatial_shapes[2 * image + 1];
    const std::int32_t vertical = links.add_forward(args.table_rows, rows);
    const std::int32_t horizontal = links.add_forward(args.table_columns, columns);
    for (std::int32_t row = 0; row < rows; ++row, token += columns)
      grid_rows.push_back({token, columns, vertical + row, horizontal});
  }
  TablePack pack;
  const auto row_place = pack.add(grid_rows);
  const auto link_place = pack.add(links.links);
  const auto weight_place = pack.add(links.weights);
  Scratch scratch(context);
  const TableMemory memory(context, scratch, pack);
  const std::int64_t width = args.tokens.columns;
  launch(context, "position_embedding", position_embedding_kernel<T, kCount>, {row_place.count, kThreads},
         {reads(memory.at(row_place), row_place.count), reads(memory.at(link_place), link_place.count),
          reads(memory.at(weight_place), weight_place.count),
          reads(args.table, args.table_rows * args.table_columns * width), writes(args.tokens)},
         memory.at(row_place), memory.at(link_place), memory.at(weight_place), args.table, args.table_columns,
         args.tokens.as<T>(), args.tokens.stride, width);
}

template <typename T, int kCount>
void gather_positions(OpContext& context, const PositionEmbeddingBackwardArgs& args) {
  Links links;
  std::vector<GridImage> images;
  std::int64_t token = 0;
  for (std::int64_t image = 0; image < args.images; ++image) {
    const std::int32_t rows = args.spatial_shapes[2 * image];
    const std::int32_t columns = args.spatial_shapes[2 * image + 1];
    images.push_back(
        {token, columns, links.add_backward(args.table_rows, rows), links.add_backward(args.table_columns, columns)});
    token += std::int64_t{rows} * columns;
  }
  const std::int64_t width = args.grad_tokens.columns;
  const std::int64_t entries = args.table_rows * args.table_columns;
  const std::int64_t floats = entries * width;
  const std::int64_t threads = floats / kCount;
  const std::int64_t wanted = std::clamp<std::int64_t>(kManyThreads / threads, 1, kMostChunks);
  const std::int64_t images_per_chunk = divide_up(args.images, std::min(wanted, args.images));
  const std::int64_t chunks = divide_up(args.images, images_per_chunk);
  TablePack pack;
  const auto image_place = pack.add(images);
  const auto link_place = pack.add(links.links);
  const auto weight_place = pack.add(links.weights);
  Scratch scratch(context);
  const TableMemory memory(context, scratch, pack, chunks * 2 * floats * static_cast<std::int64_t>(sizeof(float)));
  float* const partial = memory.rest<float>();
  launch(context, "gather_positions", gather_positions_kernel<T, kCount>,
         {divide_up(threads, kThreads), kThreads, 0, chunks},
         {reads(memory.at(image_place), image_place.count), reads(memory.at(link_place), link_place.count),
          reads(memory.at(weight_place), weight_place.count), reads(args.grad_tokens),
          writes(partial, chunks * 2 * floats)},
         memory.at(image_place), args.images, images_per_chunk, memory.at(link_place), memory.at(weight_place),
         args.grad_tokens.as<T>(), args.grad_tokens.stride, args.table_columns, entries, width, partial);
  launch(context, "combine_positions", combine_positions_kernel<kCount>, {divide_up(threads, kThreads), kThreads},
         {reads(partial, chunks * 2 * floats), writes(args.grad_table, floats)}, partial, chunks, floats,
         args.grad_table);
}

bool in_fours(const void* rows, std::int64_t stride, DType dtype, const float* table, std::int64_t width) {
  const std::size_t size = size_of(dtype);
  return width % kFeatures == 0 && rows_aligned(table, width, sizeof(float)) &&
         rows_aligned(rows, stride, size, kFeatures * size);
}

}  // namespace

void position_embedding_cuda(OpContext& context, const PositionEmbeddingArgs& args) {
  with_activation_type(args.tokens.dtype, [&](auto type) {
    using T = decltype(type);
    if (in_fours(args.tokens.data, args.tokens.stride, args.tokens.dtype, args.table, args.tokens.columns)) {
      add_positions<T, kFeatures>(context, args);
    } else {
      add_positions<T, 1>(context, args);
    }
  });
}

void position_embedding_backward_cuda(OpContext& context, const PositionEmbeddingBackwardArgs& args) {
  const ConstMatrixView& tokens = args.grad_tokens;
  with_activation_type(tokens.dtype, [&](auto type) {
    using T = decltype(type);
    if (in_fours(tokens.data, tokens.stride, tokens.dtype, args.grad_table, tokens.columns)) {
      gather_positions<T, kFeatures>(context, args);
    } else {
      gather_positions<T, 1>(context, args);
    }
  });
}

}  // namespace siglip2::cuda
