// The product of packed rows and panels of a packed weight on CPUs, which linear layers and fused MLPs are made of.
//
// Groups of panels, whose sums fit the L2 cache, are taken one after the other, and for each group the blocks of
// in_features: a block of the rows (L2) meets one panel (L1) after the other, so a panel that comes from L3 or memory
// is used for all rows. Sums of one block are added to those of the blocks before. Where the cut between blocks falls
// depends on in_features alone, and a tile's sum is in order, so a row has the same bits in every batch.
#pragma once

#include "cpu/simd/matrix_unit.h"
#include "ops/gelu/gelu_row.h"
#include "ops/layer_norm/layer_norm.h"
#include "ops/layer_norm/layer_norm_row.h"
#include "ops/linear/linear.h"
#include "ops/linear/overlapped_product.h"
#include "ops/linear/packed_weight.h"
#include "ops/linear/tile_sums.h"

namespace siglip2::SIGLIP2_ISA {

inline constexpr std::int64_t kGroupPanels = 128 / kTileColumns;

// Rows, rounded up to whole tiles.
SIGLIP2_INLINE std::int64_t tiled_rows(const PackedShape& shape, std::int64_t rows) {
  return (rows + shape.format.rows - 1) / shape.format.rows * shape.format.rows;
}

// Floats of the panels of as many rows; a multiple of 16, as all sizes here.
inline std::int64_t panels_floats(const PackedShape& shape, std::int64_t rows) {
  return (tiled_rows(shape, rows) * shape.units * shape.format.row_words + kLanes + 15) / 16 * 16;
}

// Floats of the sums of one group of panels.
inline std::int64_t sums_floats(const PackedShape& shape, std::int64_t rows) {
  return kGroupPanels * tiled_rows(shape, rows) * kTileColumns;
}

// For products of `dtype`, of rows that are not rounded unless that is bfloat16.
inline void pack_input_rows(DType dtype, const Operand& source, std::int64_t in_features, const PackedRows& packed) {
  switch (dtype) {
    case DType::kInt8:
      return quantize_rows(source.floats(), source.stride(), packed.rows, in_features, packed.panels, packed.scales);
    case DType::kBFloat16:
      return pack_pair_rows(source, packed.rows, in_features, packed.panels);
    default:
      return pack_rows(source.floats(), source.stride(), packed.rows, in_features, packed.panels);
  }
}

// Packs rows that are made one tile of rows at a time: make(row, values) fills values [in_features] of row `row`.
// `scratch` has room for format.rows of them.
template <typename Make>
void pack_made_rows(DType dtype, const PackedShape& shape, std::int64_t in_features, const PackedRows& packed,
                    float* scratch, const Make& make) {
  const std::int64_t height = shape.format.rows;
  for (std::int64_t row = 0; row < packed.rows; row += height) {
    const std::int64_t count = packed.rows - row < height ? packed.rows - row : height;
    for (std::int64_t i = 0; i < count; ++i)
      make(row + i, scratch + i * in_features);
    float* const panels = packed.panels + row * shape.units * shape.format.row_words;
    pack_input_rows(dtype, {scratch, in_features}, in_features, {panels, packed.scales + row, count});
  }
}

// Packs rows after their layer norm, if `norm` has a weight. `scratch` as for pack_made_rows.
inline void pack_normed_rows(DType dtype, const PackedShape& shape, const float* source, std::int64_t stride,
                             std::int64_t in_features, const NormParameters& norm, const PackedRows& packed,
                             float* scratch) {
  if (norm.weight == nullptr) return pack_input_rows(dtype, {source, stride}, in_features, packed);
  pack_made_rows(dtype, shape, in_features, packed, scratch, [&](std::int64_t row, float* normed) {
    normalize_row(source + row * stride, norm.weight, norm.bias, norm.epsilon, in_features, normed);
  });
}

// One tile of one block of in_features.
inline void multiply_packed_tile(DType dtype, std::int64_t rows, const TileArgs& args) {
  const auto count = static_cast<int>(rows);
  switch (dtype) {
    case DType::kInt8:
      return multiply_quad_tile(count, args);
    case DType::kBFloat16:
      return multiply_pair_tile(count, args);
    default:
      return multiply_tile(count, args);
  }
}

// Brings part `index` of `parts` of a panel's block of `units` to the L2 cache: it is used next, for all rows.
inline void prefetch_part(const float* panel, std::int64_t units, std::int64_t index, std::int64_t parts) {
  constexpr std::int64_t kLine = 64 / sizeof(float);
  const std::int64_t lines = units * kTileColumns / kLine;
  for (std::int64_t line = lines * index / parts; line < lines * (index + 1) / parts; ++line)
    prefetch(panel + line * kLine);
}

// Calls finish(sums, gelu, first row, rows, panel) for every tile of the panels, of which there is at least one: its
// complete sums (ops/linear/tile_sums.h) while they are in the L1 cache, and before it finish.prefetch_rows(row, rows,
// panel), for what it will read and write besides; `gelu` is the one that belongs to the product. `sums` has
// sums_floats of the rows. Matrix units have a way of their own (ops/linear/overlapped_product.h), which also asks
// finish.in_parts(panel). Within a MatrixUnitScope.
template <typename Finish>
void multiply_panels(const PackedWeight& weight, const PackedRows& input, const PanelRuns& panels, float* sums,
                     const Finish& finish) {
#if defined(SIGLIP2_MATRIX_UNIT)
  const bool pairs = weight.dtype == DType::kBFloat16;
  if (pairs || weight.dtype == DType::kInt8) {
    const auto multiply = [&](auto unit) {
      using Unit = decltype(unit);
      pairs ? multiply_panels_overlapped<Unit, Element::kPair>(weight, input, panels, sums, finish)
            : multiply_panels_overlapped<Unit, Element::kQuad>(weight, input, panels, sums, finish);
    };
    const cpu::ProductMethod method = pairs ? pair_product_method() : quad_product_method();
    if (method == cpu::ProductMethod::kMatrixUnit) return multiply(Registers());
    if (method == cpu::ProductMethod::kEmulatedMatrixUnit) return multiply(EmulatedRegisters());
  }
#endif
  const PackedShape shape = PackedShape::of(weight.in_features, weight.dtype);
  const std::int64_t height = shape.format.rows, row_words = shape.format.row_words;
  const std::int64_t units = shape.units, block_units = shape.units_of_block();
  const std::int64_t row_tiles = tiled_rows(shape, input.rows) / height;
  const float* const weights = static_cast<const float*>(weight.data);

  // A single tile of rows has nothing to keep in the cache: each panel is read from end to end.
  const std::int64_t group_panels = row_tiles == 1 ? 1 : kGroupPanels;
  for (std::int64_t group = 0; group < panels.count(); group += group_panels) {
    const std::int64_t left = panels.count() - group, count = left < group_panels ? left : group_panels;
    for (std::int64_t first = 0; first < units; first += block_units) {
      const std::int64_t depth = units - first < block_units ? units - first : block_units;
      const bool complete = first + depth == units;
      for (std::int64_t p = 0; p < count; ++p) {
        const std::int64_t panel = panels[group + p];
        const float* const columns = weights + shape.panel_offset(panel, first);
        const float* const next = p + 1 < count ? weights + shape.panel_offset(panels[group + p + 1], first) : nullptr;
        for (std::int64_t tile = 0; tile < row_tiles; ++tile) {
          const std::int64_t row = tile * height;
          const std::int64_t rows = input.rows - row < height ? input.rows - row : height;
          if (next != nullptr) prefetch_part(next, depth, tile, row_tiles);
          if (complete) finish.prefetch_rows(row, rows, panel);
          float* const tile_sums = sums + (p * row_tiles + tile) * height * kTileColumns;
          const float* const tile_rows = input.panels + (row * units + first * height) * row_words;
          multiply_packed_tile(weight.dtype, rows, {tile_rows, columns, depth, tile_sums, kTileColumns, first != 0});
          if (!complete) continue;
          if (weight.dtype == DType::kInt8)
            scale_quad_tile(tile_sums, rows, columns + depth * kTileColumns, input.scales + row);
          finish(FloatSums{tile_sums}, GeluBesideProduct{weight.dtype}, row, rows, panel);
        }
      }
    }
  }
}

}  // namespace siglip2::SIGLIP2_ISA
