// Matrix product on CPUs.
//
// Plan. `pack_weight` (pack_weight_cpu.cc) lays the weight out in panels of kTileColumns outputs,
// [panel][in_features][kTileColumns], so that the register tile of cpu/simd/tile.h reads it in order. A task owns a
// block of rows and a range of panels. It walks groups of panels whose sums fit the L2 cache, and for each group the
// blocks of in_features: a block's input rows (kMostRows × kMostDepth, L2) meet one panel (kMostDepth × kTileColumns,
// L1) after the other, so a panel that comes from L3 or memory is used for all rows of the block. Sums of one block of
// in_features are added to those of the blocks before; the last one is followed by bias, activation and residual while
// its tile is in L1. Where the cut between blocks falls depends on in_features alone, and a tile's sum is in order, so
// a row has the same bits in every batch.
//
// Weights in bfloat16 are the same in units of two in_features, 32 bits: panels [panel][⌈in/2⌉][kTileColumns] of pairs,
// which the tile of cpu/simd/pair_tile.h multiplies by rows that are rounded to bfloat16 when they are packed. In int8
// units are four in_features (cpu/simd/quad_tile.h), and finished sums are scaled before the bias is added.
//
// Floor: rows·in·out multiply-adds at two vectors a cycle, with vdpbf16ps two and with vpdpbusd four for each lane; for
// few rows 4·in·out bytes of weight, 2 or 1 for each value in bfloat16 or int8.
#include "ops/linear/linear.h"

#include "cpu/kernels.h"
#include "cpu/simd/pair_tile.h"
#include "cpu/simd/quad_tile.h"
#include "cpu/simd/simd_math.h"
#include "cpu/simd/tile.h"
#include "cpu/thread_pool.h"

namespace siglip2::SIGLIP2_ISA {
namespace {

constexpr std::int64_t kMostDepth = 384;  // units of both operands: see Depth
constexpr std::int64_t kMostRows = 256 / kTileRows * kTileRows;
constexpr std::int64_t kGroupPanels = 128 / kTileColumns;
constexpr std::int64_t kTileSize = kTileRows * kTileColumns;
// Work below this number of multiply-adds is not worth a second thread.
constexpr std::int64_t kLeastTaskWork = 100000;

constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

// in_features in the units that both operands are packed in: one value, two in bfloat16, four in int8.
struct Depth {
  DType type;
  std::int64_t units;
  std::int64_t row_words;    // 32-bit words of a unit of a packed row
  std::int64_t panel_units;  // of a panel of the weight, with what lies behind its last unit

  explicit Depth(const PackedWeight& weight) : type(weight.dtype) {
    const std::int64_t values = type == DType::kInt8 ? 4 : type == DType::kBFloat16 ? 2 : 1;
    units = divide_up(weight.in_features, values);
    row_words = type == DType::kInt8 ? quad_words() : type == DType::kBFloat16 ? pair_words() : 1;
    panel_units = units + (type == DType::kInt8 ? kQuadTailRows : 0);
  }

  // How they are cut, by their number alone: even blocks of at most kMostDepth.
  std::int64_t of_blocks() const {
    const std::int64_t blocks = divide_up(units, kMostDepth);
    return divide_up(divide_up(units, blocks), 8) * 8;
  }
};

// One tile's sums, rows of kTileColumns, to the output.
void finish_tile(const LinearArgs& args, const float* sums, std::int64_t first_row, std::int64_t rows,
                 std::int64_t first_column) {
  for (int v = 0; v < kTileVectors; ++v) {
    const std::int64_t column = first_column + v * kLanes;
    const std::int64_t left = args.weight.out_features - column;
    if (left <= 0) return;
    const int lanes = static_cast<int>(left < kLanes ? left : kLanes);
    const Vec bias = args.bias != nullptr ? load_first(args.bias + column, lanes) : zero();
    for (std::int64_t i = 0; i < rows; ++i) {
      Vec x = load(sums + i * kTileColumns + v * kLanes) + bias;
      if (args.activation == Activation::kGeluTanh) x = gelu_tanh(x);
      if (args.residual.data != nullptr) {
        const float* const residual = args.residual.as<float>() + (first_row + i) * args.residual.stride + column;
        x = x + (lanes == kLanes ? load(residual) : load_first(residual, lanes));
      }
      float* const output = args.output.as<float>() + (first_row + i) * args.output.stride + column;
      if (lanes == kLanes) {
        store(output, x);
      } else {
        store_first(output, x, lanes);
      }
    }
  }
}

struct Block {
  std::int64_t first_row;
  std::int64_t rows;
  std::int64_t first_panel;
  std::int64_t panels;
};

// Floats of scratch of a block: the sums of one group of panels, the scales of its input rows, and these as panels.
std::int64_t scratch_floats(std::int64_t rows, const Depth& depth) {
  const std::int64_t row_tiles = divide_up(rows, kTileRows);
  return kGroupPanels * row_tiles * kTileSize + row_tiles * kTileRows * (1 + depth.units * depth.row_words) + kLanes;
}

// Brings part `index` of `parts` of a panel's block of `depth` to the L2 cache: it is used next, for all rows.
void prefetch_part(const float* panel, std::int64_t depth, std::int64_t index, std::int64_t parts) {
  constexpr std::int64_t kLine = 64 / sizeof(float);
  const std::int64_t lines = depth * kTileColumns / kLine;
  for (std::int64_t line = lines * index / parts; line < lines * (index + 1) / parts; ++line) {
    prefetch(panel + line * kLine);
  }
}

void pack_block_rows(const LinearArgs& args, const Block& block, float* scales, float* rows) {
  const float* const input = args.input.as<float>() + block.first_row * args.input.stride;
  const std::int64_t stride = args.input.stride, in_features = args.weight.in_features;
  switch (args.weight.dtype) {
    case DType::kInt8:
      return quantize_rows(input, stride, block.rows, in_features, rows, scales);
    case DType::kBFloat16:
      return pack_pair_rows(input, stride, block.rows, in_features, rows);
    default:
      return pack_rows(input, stride, block.rows, in_features, rows);
  }
}

// One tile of one block of in_features.
void multiply(DType type, std::int64_t rows, const TileArgs& args) {
  const auto count = static_cast<int>(rows);
  switch (type) {
    case DType::kInt8:
      return multiply_quad_tile(count, args);
    case DType::kBFloat16:
      return multiply_pair_tile(count, args);
    default:
      return multiply_tile(count, args);
  }
}

void multiply_block(const LinearArgs& args, const Block& block, float* scratch) {
  const Depth depth(args.weight);
  const std::int64_t units = depth.units, block_units = depth.of_blocks();
  const std::int64_t row_tiles = divide_up(block.rows, kTileRows);
  float* const sums = scratch;
  float* const row_scales = sums + kGroupPanels * row_tiles * kTileSize;
  float* const rows = row_scales + row_tiles * kTileRows;
  const float* const weight = static_cast<const float*>(args.weight.data);
  pack_block_rows(args, block, row_scales, rows);

  // A single tile of rows has nothing to keep in the cache: each panel is read from end to end.
  const std::int64_t group_panels = row_tiles == 1 ? 1 : kGroupPanels;
  for (std::int64_t group = 0; group < block.panels; group += group_panels) {
    const std::int64_t panels = block.panels - group < group_panels ? block.panels - group : group_panels;
    for (std::int64_t first = 0; first < units; first += block_units) {
      const std::int64_t count = units - first < block_units ? units - first : block_units;
      for (std::int64_t p = 0; p < panels; ++p) {
        const std::int64_t panel = block.first_panel + group + p;
        const float* const block_weight = weight + (panel * depth.panel_units + first) * kTileColumns;
        for (std::int64_t tile = 0; tile < row_tiles; ++tile) {
          const std::int64_t row = tile * kTileRows;
          const std::int64_t tile_rows = block.rows - row < kTileRows ? block.rows - row : kTileRows;
          if (p + 1 < panels) {
            prefetch_part(block_weight + depth.panel_units * kTileColumns, count, tile, row_tiles);
          }
          float* const tile_sums = sums + (p * row_tiles + tile) * kTileSize;
          const float* const tile_row = rows + (row * units + first * kTileRows) * depth.row_words;
          multiply(depth.type, tile_rows, {tile_row, block_weight, count, tile_sums, kTileColumns, first != 0});
          if (first + count == units) {
            if (depth.type == DType::kInt8)
              scale_quad_tile(tile_sums, tile_rows, block_weight + count * kTileColumns, row_scales + row);
            finish_tile(args, tile_sums, block.first_row + row, tile_rows, panel * kTileColumns);
          }
        }
      }
    }
  }
}

}  // namespace

void linear_cpu(OpContext& context, const LinearArgs& args) {
  const std::int64_t rows = args.input.rows;
  const std::int64_t panels = divide_up(args.weight.out_features, kTileColumns);
  const std::int64_t work = rows * args.weight.in_features * panels * kTileColumns;
  std::int64_t threads = work / kLeastTaskWork + 1;
  if (threads > context.threads) threads = context.threads;

  // Row blocks of even height, as many as the threads can share evenly; columns are cut where rows do not suffice.
  std::int64_t row_blocks = divide_up(rows, kMostRows);
  if (row_blocks > threads) row_blocks = divide_up(row_blocks, threads) * threads;
  const std::int64_t block_rows = divide_up(divide_up(rows, row_blocks), kTileRows) * kTileRows;
  row_blocks = divide_up(rows, block_rows);
  std::int64_t column_blocks = row_blocks >= 4 * threads || threads == 1 ? 1 : divide_up(4 * threads, row_blocks);
  if (column_blocks > panels) column_blocks = panels;
  const std::int64_t block_panels = divide_up(panels, column_blocks);
  column_blocks = divide_up(panels, block_panels);

  cpu::parallel_for(row_blocks * column_blocks, static_cast<int>(threads), [&](std::int64_t index, int worker) {
    const std::int64_t first_row = index / column_blocks * block_rows;
    const std::int64_t first_panel = index % column_blocks * block_panels;
    const Block block = {first_row, rows - first_row < block_rows ? rows - first_row : block_rows, first_panel,
                         panels - first_panel < block_panels ? panels - first_panel : block_panels};
    const std::size_t bytes = static_cast<std::size_t>(scratch_floats(block_rows, Depth(args.weight))) * sizeof(float);
    multiply_block(args, block, static_cast<float*>(cpu::worker_scratch(worker, bytes)));
  });
}

}  // namespace siglip2::SIGLIP2_ISA
