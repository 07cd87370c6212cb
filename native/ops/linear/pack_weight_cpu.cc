// Packing of weights for the matrix product on CPUs, as ops/linear/packed_weight.h says.
//
// Plan. Outputs are rows of the stacked parts, so a panel is kTileColumns of them transposed, square after square. With
// `transpose` outputs are columns of the stack, and a panel's row is a piece of a part's row: strips of rows are copied
// to panel after panel, which reads rows in order and writes a strip's share of a panel in one piece.
//
// Floor: one read of the parts and one write of the panels.
#include <cmath>

#include "cpu/kernels.h"
#include "cpu/simd/quad_tile.h"
#include "cpu/simd/simd.h"
#include "cpu/simd/tile.h"
#include "cpu/thread_pool.h"
#include "ops/linear/linear.h"
#include "ops/linear/packed_weight.h"

namespace siglip2::SIGLIP2_ISA {
namespace {

constexpr int kStripRows = 16;  // even: pairs are of one strip

// Row `index` of parts that are stacked.
struct Row {
  const char* data;
  DType dtype;
};
Row find_row(const PackWeightArgs& args, std::int64_t index) {
  int part = 0;
  while (index >= args.parts[part].rows)
    index -= args.parts[part++].rows;
  const ConstMatrixView& matrix = args.parts[part];
  const std::int64_t bytes = matrix.dtype == DType::kFloat32 ? 4 : 2;
  return {static_cast<const char*>(matrix.data) + index * matrix.stride * bytes, matrix.dtype};
}

// kLanes values from `first` on, zero beyond `count`, which reads no byte behind the row.
Vec load_widened(const Row& row, std::int64_t first, std::int64_t count) {
  const std::int64_t bytes = row.dtype == DType::kFloat32 ? 4 : 2;
  const char* source = row.data + first * bytes;
  char rest[4 * kLanes] = {};
  if (count - first < kLanes) {
    std::memcpy(rest, source, static_cast<std::size_t>((count - first) * bytes));
    source = rest;
  }
  if (row.dtype == DType::kBFloat16) return load_bfloat16(source);
  if (row.dtype == DType::kFloat16) return load_float16(source);
  float values[kLanes];
  std::memcpy(values, source, sizeof(values));
  return load(values);
}

bool in_pairs(const PackWeightArgs& args) {
  return args.dtype == DType::kBFloat16;
}
Vec joined(Vec a, Vec b) {
  return join_pair(round_to_bfloat16(a), round_to_bfloat16(b));
}

// Zeros in the units from `first` on of the panel at `target`, which only make their number a multiple.
void clear_units(float* target, std::int64_t first, const PackedShape& shape) {
  std::memset(target + first * kTileColumns, 0,
              static_cast<std::size_t>((shape.units - first) * kTileColumns) * sizeof(float));
}

// Panel `panel`, whose outputs are rows of the stack; `target` is its beginning.
void pack_panel(const PackWeightArgs& args, std::int64_t out_features, std::int64_t panel, float* target) {
  const std::int64_t in_features = args.parts[0].columns;
  const PackedShape shape = PackedShape::of(in_features, args.dtype);
  clear_units(target, divide_up(in_features, shape.values_of_unit), shape);
  for (int v = 0; v < kTileVectors; ++v) {
    const std::int64_t first_row = panel * kTileColumns + v * kLanes;
    const std::int64_t rows = out_features - first_row;
    Row sources[kLanes];
    for (int i = 0; i < kLanes && i < rows; ++i)
      sources[i] = find_row(args, first_row + i);
    for (std::int64_t first = 0; first < in_features; first += kLanes) {
      Vec square[kLanes];
      for (int i = 0; i < kLanes; ++i)
        square[i] = i < rows ? load_widened(sources[i], first, in_features) : zero();
      transpose(square);
      for (int k = 0; k < kLanes && first + k < in_features; k += in_pairs(args) ? 2 : 1) {
        if (in_pairs(args)) {
          store(target + (first + k) / 2 * kTileColumns + v * kLanes, joined(square[k], square[k + 1]));
        } else {
          store(target + (first + k) * kTileColumns + v * kLanes, square[k]);
        }
      }
    }
  }
}

// The same in int8: each output is divided by a scale of its own, which makes the largest of its weights 127.
void pack_quad_panel(const PackWeightArgs& args, std::int64_t out_features, std::int64_t panel, float* target) {
  const std::int64_t in_features = args.parts[0].columns;
  const PackedShape shape = PackedShape::of(in_features, DType::kInt8);
  float* const tail = target + shape.units * kTileColumns;
  clear_units(target, divide_up(in_features, 4), shape);
  for (int v = 0; v < kTileVectors; ++v) {
    const std::int64_t first_row = panel * kTileColumns + v * kLanes;
    float scales[kLanes] = {}, inverses[kLanes] = {};
    std::int32_t offsets[kLanes] = {};
    Row sources[kLanes];
    for (int i = 0; i < kLanes && first_row + i < out_features; ++i) {
      sources[i] = find_row(args, first_row + i);
      float most = 0, nothing = 0;
      for (std::int64_t first = 0; first < in_features; first += kLanes) {
        float values[kLanes];
        store(values, load_widened(sources[i], first, in_features));
        for (const float value : values) {
          most = std::fabs(value) > most ? std::fabs(value) : most;
          nothing += value * 0;
        }
      }
      const QuadScale scale = QuadScale::of(most, nothing == 0);
      scales[i] = scale.scale;
      inverses[i] = scale.inverse;
    }
    for (std::int64_t first = 0; first < in_features; first += kLanes) {
      Vec square[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        const bool exists = first_row + i < out_features;
        const Vec x = exists ? load_widened(sources[i], first, in_features) : zero();
        square[i] = rounded_bits(x * broadcast(inverses[i]));
        float values[kLanes];
        store(values, square[i] - broadcast(kRoundToInteger));
        for (const float value : values)
          offsets[i] += 128 * (inverses[i] == 0 ? 0 : static_cast<std::int32_t>(value));
      }
      transpose(square);
      for (int k = 0; k < kLanes && first + k < in_features; k += 4)
        store(target + (first + k) / 4 * kTileColumns + v * kLanes,
              join_bytes(square[k], square[k + 1], square[k + 2], square[k + 3]));
    }
    std::memcpy(tail + v * kLanes, scales, sizeof(scales));
    std::memcpy(tail + kTileColumns + v * kLanes, offsets, sizeof(offsets));
  }
}

// Rows [first_row, first_row + count) of the stack, which are `depth`, into every panel of columns.
void pack_strip(const PackWeightArgs& args, std::int64_t depth, std::int64_t first_row, int count, float* packed) {
  const std::int64_t columns = args.parts[0].columns;
  Row sources[kStripRows];
  for (int i = 0; i < count; ++i)
    sources[i] = find_row(args, first_row + i);
  const auto values = [&](int row, std::int64_t column) {
    return row < count && column < columns ? load_widened(sources[row], column, columns) : zero();
  };
  const bool pairs = in_pairs(args);
  const PackedShape shape = PackedShape::of(depth, args.dtype);
  const std::int64_t first_unit = first_row / shape.values_of_unit;
  for (std::int64_t panel = 0; panel * kTileColumns < columns; ++panel) {
    float* const panel_start = packed + panel * shape.panel_units * kTileColumns;
    float* target = panel_start + first_unit * kTileColumns;
    for (int i = 0; i < count; i += pairs ? 2 : 1, target += kTileColumns) {
      for (int v = 0; v < kTileVectors; ++v) {
        const std::int64_t column = panel * kTileColumns + v * kLanes;
        store(target + v * kLanes, pairs ? joined(values(i, column), values(i + 1, column)) : values(i, column));
      }
    }
    if (first_row + count == depth) clear_units(panel_start, divide_up(depth, shape.values_of_unit), shape);
  }
}

}  // namespace

std::size_t packed_weight_bytes_cpu(std::int64_t out_features, std::int64_t in_features, DType dtype) {
  const std::int64_t units = PackedShape::of(in_features, dtype).panel_units;
  return static_cast<std::size_t>(divide_up(out_features, kTileColumns) * kTileColumns * units) * sizeof(float);
}

void pack_weight_cpu(OpContext& context, const PackWeightArgs& args) {
  std::int64_t rows = 0;
  for (int i = 0; i < args.part_count; ++i)
    rows += args.parts[i].rows;
  const std::int64_t columns = args.parts[0].columns;
  float* const packed = static_cast<float*>(args.packed);

  if (args.transpose) {
    cpu::parallel_for(divide_up(rows, kStripRows), context.threads, [&](std::int64_t strip, int) {
      const std::int64_t left = rows - strip * kStripRows;
      const int count = static_cast<int>(left < kStripRows ? left : kStripRows);
      pack_strip(args, rows, strip * kStripRows, count, packed);
    });
  } else {
    cpu::parallel_for(divide_up(rows, kTileColumns), context.threads, [&](std::int64_t panel, int) {
      float* const target = packed + panel * PackedShape::of(columns, args.dtype).panel_units * kTileColumns;
      if (args.dtype == DType::kInt8) {
        pack_quad_panel(args, rows, panel, target);
      } else {
        pack_panel(args, rows, panel, target);
      }
    });
  }
}

}  // namespace siglip2::SIGLIP2_ISA
