// Plan. A task owns a block of rows and a range of columns. For each block of the depth it packs its rows of A (L2);
// then groups of kGroupPanels panels of B, each of which (L1) meets all tiles of rows. A finished tile is added to the
// output at once. The copies cost about a tenth of a multiply-add of 16 columns each, shared by all rows or columns of
// the task. Products in bfloat16 are the same in units of two values of the depth (cpu/simd/pair_panels.h).
#include "cpu/simd/matrix_product.h"

#include <algorithm>

#include "cpu/simd/column_sums.h"
#include "cpu/simd/matrix_unit.h"
#include "cpu/simd/pair_panels.h"
#include "cpu/simd/simd_math.h"
#include "cpu/simd/tile.h"
#include "cpu/thread_pool.h"

namespace siglip2::SIGLIP2_ISA {
namespace {

constexpr std::int64_t kMostDepth = 256;  // words of a packed row of A
constexpr std::int64_t kMostRows = 384;
constexpr std::int64_t kGroupPanels = 64 / kTileColumns;
// Work below this number of multiply-adds is not worth a second thread.
constexpr std::int64_t kLeastTaskWork = 100000;

constexpr std::int64_t smaller(std::int64_t a, std::int64_t b) {
  return a < b ? a : b;
}

struct Range {
  std::int64_t first;
  std::int64_t count;
};

// Part `index` of [0, total) in parts of `size`.
Range part_of(std::int64_t total, std::int64_t size, std::int64_t index) {
  return {index * size, smaller(size, total - index * size)};
}

// How the depth is cut, by its length alone: even blocks of units, which are single values or pairs.
struct Depth {
  const TileFormat& format;
  std::int64_t unit_values;
  std::int64_t block_units;

  explicit Depth(const MatrixProductArgs& args)
      : format(args.pairs ? pair_format() : kFloatFormat), unit_values(args.pairs ? 2 : 1) {
    const std::int64_t units = units_of(args.depth);
    const std::int64_t blocks = divide_up(units * format.row_words, kMostDepth);
    const std::int64_t step = format.step > 8 ? format.step : 8;
    block_units = divide_up(divide_up(units, blocks), step) * step;
  }
  std::int64_t units_of(std::int64_t values) const { return format.units(values, static_cast<int>(unit_values)); }
};

// A[rows][depth] from its transpose as panels for a tile, [⌈rows/kTileRows⌉][depth][kTileRows]; `sums` is that of
// pack_transposed_pair_rows.
void pack_transposed_rows(const MatrixProductArgs& args, Range rows, Range depth, float* panels, float* sums) {
  // As many rows of the source at a time as keep apart in the L1 cache even where their distance is a power of two.
  constexpr std::int64_t kStep = 8;
  for (std::int64_t first = 0; first < depth.count; first += kStep) {
    const std::int64_t end = smaller(first + kStep, depth.count);
    if (sums != nullptr)
      add_column_sums(args.a.from(depth.first + first, rows.first).floats(), args.a.stride(), end - first, rows.count,
                      sums);
    for (std::int64_t i = 0; i < rows.count; i += kTileRows) {
      const bool inside = rows.first + i + kLanes <= args.rows;
      float* const panel = panels + i * depth.count;
      for (std::int64_t k = first; k < end; ++k) {
        const float* const source = args.a.from(depth.first + k, rows.first + i).floats();
        const int tile_rows = static_cast<int>(smaller(kTileRows, rows.count - i));
        if (inside && k + 1 < end) {
          store(panel + k * kTileRows, load(source));  // surplus lanes are overwritten by the next
        } else {
          store_first(panel + k * kTileRows, load_first(source, tile_rows), tile_rows);
        }
      }
    }
  }
}

// B[depth][columns] as panels, [⌈columns/kTileColumns⌉][depth][kTileColumns]; columns that are not there are 0.
template <typename Activation>
void pack_columns(const MatrixProductArgs& args, Range depth, Range columns, float* panels,
                  const Activation& activation) {
  for (std::int64_t k = 0; k < depth.count; ++k) {
    const float* const source = args.b.from(depth.first + k, columns.first).floats();
    for (std::int64_t j = 0; j < columns.count; j += kLanes) {
      float* const target =
          panels + j / kTileColumns * depth.count * kTileColumns + k * kTileColumns + j % kTileColumns;
      const std::int64_t left = columns.count - j;
      store(target, activation(left >= kLanes ? load(source + j) : load_first(source + j, static_cast<int>(left))));
    }
    for (std::int64_t j = divide_up(columns.count, kLanes) * kLanes; j % kTileColumns != 0; j += kLanes) {
      store(panels + j / kTileColumns * depth.count * kTileColumns + k * kTileColumns + j % kTileColumns, zero());
    }
  }
}

void finish_tile(const MatrixProductArgs& args, const float* sums, Range rows, Range columns, bool accumulate) {
  const Vec scale = broadcast(args.scale);
  for (int v = 0; v < kTileVectors; ++v) {
    const std::int64_t left = columns.count - v * kLanes;
    if (left <= 0) return;
    const int lanes = static_cast<int>(smaller(left, kLanes));
    for (std::int64_t i = 0; i < rows.count; ++i) {
      float* const out = args.out + (rows.first + i) * args.out_stride + columns.first + v * kLanes;
      const Vec sum = load(sums + i * kTileColumns + v * kLanes);
      if (lanes == kLanes) {
        store(out, accumulate ? multiply_add(scale, sum, load(out)) : scale * sum);
      } else {
        store_first(out, accumulate ? multiply_add(scale, sum, load_first(out, lanes)) : scale * sum, lanes);
      }
    }
  }
}

void pack_a(const MatrixProductArgs& args, Range rows, Range depth, float* panels, float* sums) {
  if (args.pairs) {
    pack_transposed_pair_rows(args.a.from(depth.first, rows.first), depth.count, rows.count, args.rows - rows.first,
                              panels, sums);
  } else if (args.a_transposed) {
    pack_transposed_rows(args, rows, depth, panels, sums);
  } else {
    pack_rows(args.a.from(rows.first, depth.first).floats(), args.a.stride(), rows.count, depth.count, panels);
  }
}

void pack_b(const MatrixProductArgs& args, Range depth, Range columns, float* panels) {
  if (args.pairs) {
    pack_pair_columns(args.b.from(depth.first, columns.first), depth.count, columns.count, args.b_gelu, panels);
  } else if (args.b_gelu) {
    pack_columns(args, depth, columns, panels, [](Vec x) __attribute__((always_inline)) { return gelu_tanh(x); });
  } else {
    pack_columns(args, depth, columns, panels, [](Vec x) __attribute__((always_inline)) { return x; });
  }
}

std::int64_t a_floats(std::int64_t rows, const Depth& depth) {
  const std::int64_t words = depth.block_units * depth.format.row_words, height = depth.format.rows;
  return divide_up(divide_up(rows, height) * height * words + kLanes, 16) * 16;
}

void multiply_block(const MatrixProductArgs& args, Range rows, Range columns, const Depth& cut, float* scratch) {
  float* const a = scratch;
  float* const b = scratch + a_floats(rows.count, cut);
  constexpr int kMostTileRows = kMatrixUnitFormat.rows > kTileRows ? kMatrixUnitFormat.rows : kTileRows;
  alignas(64) float sums[kMostTileRows * kTileColumns];
  const std::int64_t height = cut.format.rows;
  const std::int64_t step = cut.block_units * cut.unit_values;
  // Blocks of columns all meet the same rows of A; the first one sums them up, a block of the depth at a time.
  const bool summing = args.a_sums != nullptr && columns.first == 0;
  alignas(64) float row_sums[kMostRows + kLanes];
  for (std::int64_t first = 0; first < args.depth; first += step) {
    const Range depth = {first, smaller(step, args.depth - first)};
    const std::int64_t units = cut.units_of(depth.count);
    if (summing) std::fill_n(row_sums, rows.count + kLanes, 0.0f);
    pack_a(args, rows, depth, a, summing ? row_sums : nullptr);
    for (std::int64_t i = 0; summing && i < rows.count; ++i)
      args.a_sums[rows.first + i] += row_sums[i];
    const bool accumulate = args.accumulate || first > 0;
    for (std::int64_t g = 0; g < columns.count; g += kGroupPanels * kTileColumns) {
      const Range group = {columns.first + g, smaller(kGroupPanels * kTileColumns, columns.count - g)};
      pack_b(args, depth, group, b);
      for (std::int64_t p = 0; p < group.count; p += kTileColumns) {
        const Range panel = {group.first + p, smaller(kTileColumns, group.count - p)};
        for (std::int64_t i = 0; i < rows.count; i += height) {
          const Range tile = {rows.first + i, smaller(height, rows.count - i)};
          // A whole tile that is not scaled goes to the output without a stop. Matrix units write all of its rows.
          const bool whole = panel.count == kTileColumns && (height == kTileRows || tile.count == height);
          const bool direct = args.scale == 1.0f && whole;
          float* const target = direct ? args.out + tile.first * args.out_stride + panel.first : sums;
          (args.pairs ? multiply_pair_tile : multiply_tile)(
              static_cast<int>(tile.count), {a + i * units * cut.format.row_words, b + p * units, units, target,
                                             direct ? args.out_stride : kTileColumns, direct && accumulate});
          if (!direct) finish_tile(args, sums, tile, panel, accumulate);
        }
      }
    }
  }
}

// How the output is cut into the blocks of tasks.
struct Cut {
  std::int64_t row_blocks;
  std::int64_t column_blocks;
};

// Enough tasks, with the fewest values to pack: A is packed for every block of columns, and B for every block of rows.
Cut choose_cut(const MatrixProductArgs& args, std::int64_t height, std::int64_t tasks) {
  const std::int64_t most_row_blocks = divide_up(args.rows, height);
  const std::int64_t most_column_blocks = divide_up(args.columns, kTileColumns);
  const std::int64_t least_row_blocks = divide_up(args.rows, kMostRows / height * height);
  Cut best = {most_row_blocks, most_column_blocks};
  if (most_row_blocks * most_column_blocks < tasks) return best;
  std::int64_t fewest = best.column_blocks * args.rows + best.row_blocks * args.columns;
  for (std::int64_t row_blocks = least_row_blocks; row_blocks <= most_row_blocks; ++row_blocks) {
    const std::int64_t column_blocks = divide_up(tasks, row_blocks);
    if (column_blocks > most_column_blocks) continue;
    const std::int64_t packed = column_blocks * args.rows + row_blocks * args.columns;
    if (packed >= fewest) continue;
    fewest = packed;
    best = {row_blocks, column_blocks};
  }
  return best;
}

}  // namespace

void multiply_matrices(const MatrixProductArgs& args, int most_threads) {
  const std::int64_t work = args.rows * args.columns * args.depth;
  const std::int64_t threads = smaller(most_threads, work / kLeastTaskWork + 1);
  const Depth depth(args);

  const std::int64_t height = depth.format.rows;
  const Cut cut = choose_cut(args, height, threads);
  const std::int64_t block_rows = divide_up(divide_up(args.rows, cut.row_blocks), height) * height;
  const std::int64_t block_columns = divide_up(divide_up(args.columns, cut.column_blocks), kTileColumns) * kTileColumns;
  const std::int64_t row_blocks = divide_up(args.rows, block_rows);
  const std::int64_t column_blocks = divide_up(args.columns, block_columns);

  const std::int64_t b_floats = kGroupPanels * kTileColumns * depth.block_units;
  const auto bytes = static_cast<std::size_t>(a_floats(block_rows, depth) + b_floats) * sizeof(float);
  cpu::parallel_for(row_blocks * column_blocks, static_cast<int>(threads), [&](std::int64_t index, int worker) {
    const MatrixUnitScope matrix_unit(args.pairs);
    multiply_block(args, part_of(args.rows, block_rows, index / column_blocks),
                   part_of(args.columns, block_columns, index % column_blocks), depth,
                   static_cast<float*>(cpu::worker_scratch(worker, bytes)));
  });
}

}  // namespace siglip2::SIGLIP2_ISA
