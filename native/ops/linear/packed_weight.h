// How weights lie in memory on CPUs: [panel][units and what follows them][kTileColumns], zero behind the last output
// and the last in_feature. A unit is one float32, a pair of bfloat16 numbers or a quad of 8-bit integers; in int8 each
// panel ends with kQuadTailRows more rows (cpu/simd/quad_tile.h).
#pragma once

#include "cpu/simd/pair_tile.h"
#include "cpu/simd/quad_tile.h"
#include "cpu/simd/tile.h"
#include "tensor/dtype.h"

namespace siglip2::SIGLIP2_ISA {

struct PackedShape {
  const TileFormat& format;
  int values_of_unit;
  std::int64_t units;        // that are multiplied
  std::int64_t panel_units;  // from the beginning of one panel to that of the next

  static PackedShape of(std::int64_t in_features, DType dtype) {
    const bool quads = dtype == DType::kInt8, pairs = dtype == DType::kBFloat16;
    const TileFormat& format = quads ? quad_format() : pairs ? pair_format() : kFloatFormat;
    const int values = quads ? 4 : pairs ? 2 : 1;
    const std::int64_t units = format.units(in_features, values);
    return {format, values, units, units + (quads ? kQuadTailRows : 0)};
  }

  // Words before unit `unit` of panel `panel`.
  std::int64_t panel_offset(std::int64_t panel, std::int64_t unit) const {
    return (panel * panel_units + unit) * kTileColumns;
  }

  // Units of a block of the depth: even blocks that caches can hold, cut by the number of units alone.
  std::int64_t units_of_block() const {
    const std::int64_t blocks = divide_up(units, format.most_depth);
    const std::int64_t step = format.step > 8 ? format.step : 8;
    return divide_up(divide_up(units, blocks), step) * step;
  }
};

// Panels of a packed weight in the order in which they are multiplied: runs of `length` neighbours, at most three.
struct PanelRuns {
  std::int64_t length;
  std::int64_t starts[3];
  std::int64_t runs = 1;

  std::int64_t count() const { return length * runs; }
  std::int64_t operator[](std::int64_t index) const { return starts[index / length] + index % length; }
};

// Rows packed for a product: `panels` as the format says, and in int8 the scale of each.
struct PackedRows {
  float* panels;
  float* scales;
  std::int64_t rows;
};

}  // namespace siglip2::SIGLIP2_ISA
