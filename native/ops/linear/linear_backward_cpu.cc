// Gradients of a linear layer's parameters on CPUs.
//
// Plan. grad_weight is the product of grad_outputᵀ and input, so rows are the k of the register tile of
// cpu/simd/tile.h: its a are columns of grad_output and its b columns of input, and nothing is transposed. A task owns
// a block of outputs × inputs and walks the blocks of rows in order. For each it copies its columns of grad_output as
// panels (kMostOutputs × kMostDepth, L2) and then, group by group, those of input (kGroupInputs columns, L2); a panel
// of input (L1) meets all panels of grad_output, and each tile of sums is added to grad_weight. Where the cut between
// blocks of rows falls depends on their number alone, and a tile's sum is in order, so results do not depend on the
// tasks. Bias gradients are summed from the panels of grad_output, once for each output.
//
// Floor: rows·in·out multiply-adds at two vectors a cycle; for few rows a read and a write of grad_weight.
#include "cpu/kernels.h"
#include "cpu/simd/tile.h"
#include "cpu/thread_pool.h"
#include "ops/linear/linear.h"

namespace siglip2::SIGLIP2_ISA {
namespace {

constexpr std::int64_t kMostDepth = 256;
constexpr std::int64_t kMostOutputs = 384 / kTileRows * kTileRows;
constexpr std::int64_t kGroupInputs = 64 / kTileColumns * kTileColumns;
constexpr std::int64_t kStripRows = 8;
// Work below this number of multiply-adds is not worth a second thread.
constexpr std::int64_t kLeastTaskWork = 100000;

constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}
constexpr std::int64_t smaller(std::int64_t a, std::int64_t b) {
  return a < b ? a : b;
}

// How rows are cut, by their number alone: even blocks of at most kMostDepth.
std::int64_t depth_of_blocks(std::int64_t rows) {
  return divide_up(divide_up(rows, divide_up(rows, kMostDepth)), 8) * 8;
}

// Lays columns of `rows` rows out as panels of kWidth, [⌈columns/kWidth⌉][rows][kWidth], zero beyond the last column.
// Strips of rows go to panel after panel, so that rows are read in order and panels written in pieces.
template <int kWidth>
void pack_columns(const float* source, std::int64_t stride, std::int64_t rows, std::int64_t columns, float* panels) {
  static_assert(kWidth < kLanes || kWidth % kLanes == 0);
  for (std::int64_t strip = 0; strip < rows; strip += kStripRows) {
    const std::int64_t strip_end = smaller(strip + kStripRows, rows);
    for (std::int64_t first = 0; first < columns; first += kWidth) {
      float* const panel = panels + first * rows;
      for (std::int64_t row = strip; row < strip_end; ++row) {
        SIGLIP2_UNROLL for (int v = 0; v < kWidth; v += kLanes) {
          const float* const values = source + row * stride + first + v;
          const std::int64_t left = columns - first - v;
          const Vec x = left >= kLanes ? load(values) : load_first(values, left < 0 ? 0 : static_cast<int>(left));
          float* const target = panel + row * kWidth + v;
          // Surplus lanes are overwritten by the next row; behind the last one is another panel.
          if (kWidth % kLanes == 0 || row + 1 < rows) {
            store(target, x);
          } else {
            store_first(target, x, kWidth % kLanes);
          }
        }
      }
    }
  }
}

// Adds the column sums of a panel, [rows][kTileRows], to the first `columns` of `target`.
void add_column_sums(const float* panel, std::int64_t rows, int columns, float* target) {
  Vec sums[4] = {zero(), zero(), zero(), zero()};
  std::int64_t row = 0;
  for (; row + 4 < rows; row += 4) {
    for (int i = 0; i < 4; ++i)
      sums[i] = sums[i] + load(panel + (row + i) * kTileRows);
  }
  for (; row < rows; ++row)
    sums[0] = sums[0] + load_first(panel + row * kTileRows, kTileRows);
  const Vec sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  store_first(target, load_first(target, columns) + sum, columns);
}

// A tile at the right edge of grad_weight, where the register tile would write beyond a row's end.
void add_edge_tile(int rows, const TileArgs& tile, std::int64_t columns) {
  float sums[kTileRows * kTileColumns];
  multiply_tile(rows, {tile.a, tile.b, tile.count, sums, kTileColumns, false});
  for (int i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < columns; ++j)
      tile.out[i * tile.out_stride + j] += sums[i * kTileColumns + j];
  }
}

struct Block {
  std::int64_t first_output;
  std::int64_t outputs;
  std::int64_t first_input;
  std::int64_t inputs;
};

// Floats of scratch of a block: its columns of grad_output and one group of its columns of input, as panels.
std::int64_t scratch_floats(std::int64_t outputs, std::int64_t depth) {
  return (divide_up(outputs, kTileRows) * kTileRows + kGroupInputs) * depth;
}

void add_block(const LinearBackwardArgs& args, const Block& block, float* scratch) {
  const std::int64_t rows = args.input.rows;
  const std::int64_t in_features = args.input.columns;
  const std::int64_t depth = depth_of_blocks(rows);
  float* const input_panels = scratch;
  float* const output_panels = scratch + kGroupInputs * depth;

  for (std::int64_t first_row = 0; first_row < rows; first_row += depth) {
    const std::int64_t count = smaller(depth, rows - first_row);
    pack_columns<kTileRows>(args.grad_output.as<float>() + first_row * args.grad_output.stride + block.first_output,
                            args.grad_output.stride, count, block.outputs, output_panels);
    if (args.grad_bias != nullptr && block.first_input == 0) {
      for (std::int64_t output = 0; output < block.outputs; output += kTileRows) {
        add_column_sums(output_panels + output * count, count,
                        static_cast<int>(smaller(kTileRows, block.outputs - output)),
                        args.grad_bias + block.first_output + output);
      }
    }
    for (std::int64_t group = 0; group < block.inputs; group += kGroupInputs) {
      const std::int64_t group_inputs = smaller(kGroupInputs, block.inputs - group);
      pack_columns<kTileColumns>(args.input.as<float>() + first_row * args.input.stride + block.first_input + group,
                                 args.input.stride, count, group_inputs, input_panels);
      for (std::int64_t input = 0; input < group_inputs; input += kTileColumns) {
        float* const target = args.grad_weight + block.first_output * in_features + block.first_input + group + input;
        for (std::int64_t output = 0; output < block.outputs; output += kTileRows) {
          const int tile_rows = static_cast<int>(smaller(kTileRows, block.outputs - output));
          const TileArgs tile = {output_panels + output * count,
                                 input_panels + input * count,
                                 count,
                                 target + output * in_features,
                                 in_features,
                                 true};
          if (group_inputs - input >= kTileColumns) {
            multiply_tile(tile_rows, tile);
          } else {
            add_edge_tile(tile_rows, tile, group_inputs - input);
          }
        }
      }
    }
  }
}

}  // namespace

void linear_backward_cpu(OpContext& context, const LinearBackwardArgs& args) {
  const std::int64_t rows = args.input.rows;
  const std::int64_t in_features = args.input.columns, out_features = args.grad_output.columns;
  const std::int64_t threads = smaller(context.threads, rows * in_features * out_features / kLeastTaskWork + 1);

  // Blocks of outputs of even height, as many as the threads can share evenly; inputs are cut where they do not
  // suffice, and then outputs into lower blocks.
  std::int64_t output_blocks = divide_up(out_features, kMostOutputs);
  if (output_blocks > threads) output_blocks = divide_up(output_blocks, threads) * threads;
  std::int64_t input_blocks = 1;
  if (threads > 1 && output_blocks < 4 * threads) {
    const std::int64_t groups = divide_up(in_features, kGroupInputs);
    input_blocks = smaller(divide_up(4 * threads, output_blocks), groups);
    if (output_blocks * input_blocks < 4 * threads) output_blocks = divide_up(4 * threads, input_blocks);
  }
  const std::int64_t block_outputs = divide_up(divide_up(out_features, output_blocks), kTileRows) * kTileRows;
  const std::int64_t block_inputs = divide_up(divide_up(in_features, input_blocks), kTileColumns) * kTileColumns;
  output_blocks = divide_up(out_features, block_outputs);
  input_blocks = divide_up(in_features, block_inputs);

  const std::size_t scratch_bytes =
      static_cast<std::size_t>(scratch_floats(block_outputs, depth_of_blocks(rows))) * sizeof(float);
  cpu::parallel_for(output_blocks * input_blocks, static_cast<int>(threads), [&](std::int64_t index, int worker) {
    const std::int64_t output = index / input_blocks * block_outputs;
    const std::int64_t input = index % input_blocks * block_inputs;
    const Block block = {output, smaller(block_outputs, out_features - output), input,
                         smaller(block_inputs, in_features - input)};
    add_block(args, block, static_cast<float*>(cpu::worker_scratch(worker, scratch_bytes)));
  });
}

}  // namespace siglip2::SIGLIP2_ISA
