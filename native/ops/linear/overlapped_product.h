// The product of packed rows and panels of a packed weight by a matrix unit (cpu/simd/matrix_unit.h).
//
// The unit works beside the rest of the core: a tile of 32 × 32 and 768 values takes it 1536 cycles, and what follows
// the sums (bias, GELU, rounding, output) takes the vector units about as long (reckoned). So tiles are not finished at
// once: they wait in a queue, and rows of them are finished between the steps of the tiles behind, as many as keeps
// pace. Panels of the weight are taken one after the other, and for each its blocks of in_features, most of which the
// L1 cache keeps while the rows stream from L2; the block that comes next is fetched to L2 meanwhile. Where a panel is
// one block, a tile's sums are complete at once, and a few places for sums, always the same, stay in the L1 cache, too.
//
// Sums and results have the same bits as one tile after the other.
#pragma once

#include "cpu/simd/matrix_registers.h"
#include "ops/linear/packed_weight.h"

#if defined(SIGLIP2_MATRIX_UNIT)

namespace siglip2::SIGLIP2_ISA {

// Tiles whose sums are complete, oldest first, at most those of two panels.
class UnfinishedTiles {
 public:
  static constexpr std::int64_t kMostRowTiles = 8;
  struct Tile {
    float* sums;
    std::int64_t index, row, rows, panel, done;
  };

  bool empty() const { return first_ == end_; }
  Tile& oldest() { return tiles_[first_ % kCapacity]; }
  void push(const Tile& tile) { tiles_[end_++ % kCapacity] = tile; }
  void pop() { ++first_; }

 private:
  static constexpr std::int64_t kCapacity = 2 * kMostRowTiles;
  Tile tiles_[kCapacity];
  std::int64_t first_ = 0, end_ = 0;
};

// As multiply_panels (ops/linear/packed_product.h), of at most 32 · kMostRowTiles rows. `finish` is also called for
// parts of a tile, in order, where finish.in_parts(panel) says that it may be.
template <class Unit, Element kElement, typename Finish>
void multiply_panels_overlapped(const PackedWeight& weight, const PackedRows& input, const PanelRuns& panels,
                                float* sums, const Finish& finish) {
  constexpr std::int64_t kHeight = kMatrixUnitFormat.rows, kRowsAtOnce = 2, kRowsAhead = 8;
  const PackedShape shape = PackedShape::of(weight.in_features, weight.dtype);
  const std::int64_t units = shape.units, block_units = shape.units_of_block();
  const std::int64_t row_tiles = divide_up(input.rows, kHeight), steps = units / kRegisterRows;
  const float* const weights = static_cast<const float*>(weight.data);
  // Places for a tile's sums, used in turn: a tile is finished while the next is multiplied, or the next panel's.
  constexpr std::int64_t kFewPlaces = 3;
  const std::int64_t places = units <= block_units ? kFewPlaces : 2 * row_tiles;

  UnfinishedTiles waiting;
  const auto finish_rows = [&](UnfinishedTiles::Tile& tile, std::int64_t most) __attribute__((always_inline)) {
    const std::int64_t rows = tile.rows - tile.done < most ? tile.rows - tile.done : most;
    // What rows need that are finished some hundred cycles later; behind a tile's last row the next tile's.
    const std::int64_t later = tile.row + tile.done + kRowsAhead, left = input.rows - later;
    if (left > 0) finish.prefetch_rows(later, left < rows ? left : rows, tile.panel);
    float* const part = tile.sums + tile.done * kTileColumns;
    if constexpr (kElement == Element::kQuad)
      scale_quad_tile(part, rows, weights + shape.panel_offset(tile.panel, units), input.scales + tile.row + tile.done);
    finish(part, tile.row + tile.done, rows, tile.panel);
    tile.done += rows;
  };

  // A tile of rows is finished in as many steps as one is multiplied in.
  std::int64_t due = 0;
  const float* next = nullptr;  // what is left of the next block
  std::int64_t next_pairs = 0;  // of lines: the L2 cache fetches both of a pair of 64 bytes when asked for one
  const auto beside = [&](std::int64_t) __attribute__((always_inline)) {
    constexpr std::int64_t kPair = 2 * 64 / sizeof(float);
    for (std::int64_t pair = 0; pair < next_pairs; ++pair, next += kPair)
      prefetch(next);
    due += kHeight;
    if (due < kRowsAtOnce * steps) return;
    due -= kRowsAtOnce * steps;
    if (waiting.empty()) return;
    UnfinishedTiles::Tile& tile = waiting.oldest();
    finish_rows(tile, kRowsAtOnce);
    if (tile.done == tile.rows) waiting.pop();
  };

  for (std::int64_t p = 0; p < panels.count(); ++p) {
    const std::int64_t panel = panels[p];
    const bool last_panel = p + 1 == panels.count();
    for (std::int64_t first = 0; first < units; first += block_units) {
      const std::int64_t depth = units - first < block_units ? units - first : block_units;
      const bool last = first + depth == units;
      const float* const columns = weights + shape.panel_offset(panel, first);
      next = !last        ? columns + depth * kTileColumns
             : last_panel ? nullptr
                          : weights + shape.panel_offset(panels[p + 1], 0);
      next_pairs = next == nullptr ? 0 : divide_up(block_units * kRegisterRows, row_tiles * depth);
      for (std::int64_t tile = 0; tile < row_tiles; ++tile) {
        const std::int64_t row = tile * kHeight;
        const std::int64_t rows = input.rows - row < kHeight ? input.rows - row : kHeight;
        // What an earlier tile has left here: parts are finished about as fast as they come.
        const std::int64_t index = p * row_tiles + tile;
        float* const tile_sums = sums + index % places * kHeight * kTileColumns;
        while (!waiting.empty() && waiting.oldest().index + places <= index) {
          finish_rows(waiting.oldest(), kHeight);
          waiting.pop();
        }
        const TileArgs args = {
            input.panels + row * units + first * kHeight, columns, depth, tile_sums, kTileColumns, first != 0};
        rows > kRegisterRows ? multiply_matrix_tile<Unit, kElement, true>(args, kKeptUnits, beside)
                             : multiply_matrix_tile<Unit, kElement, false>(args, kKeptUnits, beside);
        if (!last) continue;
        UnfinishedTiles::Tile complete = {tile_sums, index, row, rows, panel, 0};
        finish.in_parts(panel) ? waiting.push(complete) : finish_rows(complete, kHeight);
      }
    }
  }
  for (; !waiting.empty(); waiting.pop())
    finish_rows(waiting.oldest(), kHeight);
}

}  // namespace siglip2::SIGLIP2_ISA

#endif
