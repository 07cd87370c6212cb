// Matrix product on CPUs.
//
// Plan. `pack_weight` (pack_weight_cpu.cc) lays the weight out in panels of kTileColumns outputs that the register
// tiles of cpu/simd/ read in order: float32, pairs of bfloat16 numbers (pair_tile.h), quads of 8-bit integers
// (quad_tile.h). A task owns a block of rows and a range of panels. It packs its rows, rounded to bfloat16 or quantised
// where the weight is, and multiplies (packed_product.h); GELU of the input is taken a tile of rows at a time before
// they are packed. A tile that is complete is followed by bias, activation or gradient of one, and residual while it is
// in L1.
//
// Floor: rows·in·out multiply-adds at two vectors a cycle, with vdpbf16ps two and with vpdpbusd four for each lane,
// with AMX 512 and 1024 a cycle; for few rows 4·in·out bytes of weight, 2 or 1 for each value in bfloat16 or int8.
#include "ops/linear/linear.h"

#include "cpu/kernels.h"
#include "cpu/thread_pool.h"
#include "ops/linear/finish_tile.h"
#include "ops/linear/packed_product.h"

namespace siglip2::SIGLIP2_ISA {
namespace {

constexpr std::int64_t kMostRows = 256;
// Work below this number of multiply-adds is not worth a second thread.
constexpr std::int64_t kLeastTaskWork = 100000;

struct Block {
  std::int64_t first_row;
  std::int64_t rows;
  std::int64_t first_panel;
  std::int64_t panels;
};

// Floats of scratch of a block: the sums, its rows as panels with their scales, and a tile of rows after their GELU.
std::int64_t scratch_floats(const LinearArgs& args, const PackedShape& shape, std::int64_t rows) {
  const bool activated = args.input_activation != Activation::kNone;
  return sums_floats(shape, rows) + panels_floats(shape, rows) + tiled_rows(shape, rows) +
         (activated ? shape.format.rows * args.weight.in_features : 0);
}

void pack_block(const LinearArgs& args, const PackedShape& shape, std::int64_t first_row, const PackedRows& packed,
                float* scratch) {
  const DType dtype = args.weight.dtype;
  const std::int64_t in_features = args.weight.in_features;
  const Operand input = Operand(args.input).from(first_row, 0);
  if (args.input_activation == Activation::kNone) return pack_input_rows(dtype, input, in_features, packed);
  pack_made_rows(dtype, shape, in_features, packed, scratch, [&](std::int64_t row, float* values) {
    input.from(row, 0).read(
        [&](const auto* source) { gelu_row(source, values, in_features, GeluBesideProduct{dtype}); });
  });
}

void multiply_block(const LinearArgs& args, const PackedShape& shape, const Block& block, float* scratch) {
  float* const panels = scratch + sums_floats(shape, block.rows);
  float* const scales = panels + panels_floats(shape, block.rows);
  const PackedRows rows = {panels, scales, block.rows};
  pack_block(args, shape, block.first_row, rows, scales + tiled_rows(shape, block.rows));
  const MatrixUnitScope matrix_unit(args.weight.dtype != DType::kFloat32);
  multiply_panels(args.weight, rows, {block.panels, {block.first_panel}}, scratch, FinishLinear{args, block.first_row});
}

}  // namespace

void linear_cpu(OpContext& context, const LinearArgs& args) {
  const std::int64_t rows = args.input.rows;
  const std::int64_t panels = divide_up(args.weight.out_features, kTileColumns);
  const std::int64_t work = rows * args.weight.in_features * panels * kTileColumns;
  std::int64_t threads = work / kLeastTaskWork + 1;
  if (threads > context.threads) threads = context.threads;

  // Row blocks of even height, as many as the threads can share evenly; columns are cut where rows do not suffice.
  const PackedShape shape = PackedShape::of(args.weight.in_features, args.weight.dtype);
  const std::int64_t height = shape.format.rows;
  std::int64_t row_blocks = divide_up(rows, kMostRows / height * height);
  if (row_blocks > threads) row_blocks = divide_up(row_blocks, threads) * threads;
  const std::int64_t block_rows = divide_up(divide_up(rows, row_blocks), height) * height;
  row_blocks = divide_up(rows, block_rows);
  // Every block of columns packs its rows anew, and takes GELU of their input.
  const std::int64_t tasks = args.input_activation == Activation::kNone ? 2 * threads : threads;
  std::int64_t column_blocks = row_blocks >= tasks || threads == 1 ? 1 : divide_up(tasks, row_blocks);
  if (column_blocks > panels) column_blocks = panels;
  const std::int64_t block_panels = divide_up(panels, column_blocks);
  column_blocks = divide_up(panels, block_panels);

  cpu::parallel_for(row_blocks * column_blocks, static_cast<int>(threads), [&](std::int64_t index, int worker) {
    const std::int64_t first_row = index / column_blocks * block_rows;
    const std::int64_t first_panel = index % column_blocks * block_panels;
    const Block block = {first_row, rows - first_row < block_rows ? rows - first_row : block_rows, first_panel,
                         panels - first_panel < block_panels ? panels - first_panel : block_panels};
    const std::size_t bytes = static_cast<std::size_t>(scratch_floats(args, shape, block.rows)) * sizeof(float);
    multiply_block(args, shape, block, static_cast<float*>(cpu::worker_scratch(worker, bytes)));
  });
}

}  // namespace siglip2::SIGLIP2_ISA
