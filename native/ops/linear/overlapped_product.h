// The product of packed rows and panels of a packed weight by a matrix unit (cpu/simd/matrix_unit.h).
//
// The unit works beside the rest of the core: a tile of 32 × 32 and 768 values takes it 1536 cycles, in which the
// vector units have time for what follows the sums (bias, GELU, rounding, output). So tiles are not finished at once:
// they wait in a queue, and rows of them are finished between the steps of the tiles behind, as many as keeps pace.
// What is short are loads: those of rows, which stream from L2, take as long as the products (docs/performance.md,
// AMX). Panels of the weight are taken one after the other, and for each its blocks of in_features, most of which the
// L1 cache keeps; the block that comes next is fetched to L2 meanwhile. Where a panel is one block, a tile's sums are
// complete at once, and a few places for sums, always the same, stay in the L1 cache, too.
//
// Sums and results have the same bits as one tile after the other.
#pragma once

#include <utility>

#include "cpu/simd/matrix_registers.h"
#include "ops/linear/packed_weight.h"
#include "ops/linear/tile_sums.h"

#if defined(SIGLIP2_MATRIX_UNIT)

namespace siglip2::SIGLIP2_ISA {

// Tiles whose sums are complete, oldest first, at most those of two panels.
class UnfinishedTiles {
 public:
  static constexpr std::int64_t kMostRowTiles = 8;
  struct Tile {
    float* sums;
    std::int64_t index, rows;
    TilePlace place;
  };

  bool empty() const { return first_ == end_; }
  const Tile& oldest() const { return tiles_[first_ % kCapacity]; }
  void push(const Tile& tile) { tiles_[end_++ % kCapacity] = tile; }
  void pop() { ++first_; }

 private:
  static constexpr std::uint64_t kCapacity = 2 * kMostRowTiles;
  Tile tiles_[kCapacity];
  std::uint64_t first_ = 0, end_ = 0;
};

// What is done between the steps of a product: the next block of the weight is fetched, and tiles are finished that
// wait. All of it is inlined, and constants stay in registers: loads are what the loop has least of.
template <Element kElement, typename Finish>
class WorkBesideProduct {
 public:
  // `weights` and `scales` are those of the product, `sums` any place for a tile's.
  SIGLIP2_INLINE WorkBesideProduct(const Finish& finish, const PackedShape& shape, const float* weights,
                                   const float* scales, float* sums, UnfinishedTiles& waiting)
      : waiting_(waiting),
        finish_(finish),
        shape_(shape),
        weights_(weights),
        scales_(scales),
        rows_(rows_of({sums, 0, 0, {0, 0}})),
        threshold_(kRowsAtOnce * shape.units / kRegisterRows) {}

  // From `next` on `pairs` pairs of lines are asked for in every step: the L2 cache fetches both when asked for one.
  SIGLIP2_INLINE void fetch(const float* next, std::int64_t pairs) {
    next_ = next;
    next_pairs_ = pairs;
  }
  SIGLIP2_INLINE void step() {
    constexpr std::int64_t kPair = 2 * 64 / sizeof(float);
    for (std::int64_t pair = 0; pair < next_pairs_; ++pair, next_ += kPair)
      prefetch(next_);
    for (due_ += kMatrixUnitFormat.rows; due_ >= threshold_; due_ -= threshold_)
      finish_due();
  }
  SIGLIP2_INLINE void push(const UnfinishedTiles::Tile& tile) { waiting_.push(tile); }
  // Finishes tiles until those before `index` are done.
  SIGLIP2_INLINE void finish_before(std::int64_t index) {
    while (!waiting_.empty() && waiting_.oldest().index < index)
      finish_due();
  }
  SIGLIP2_INLINE auto sums_of(const UnfinishedTiles::Tile& tile) const {
    if constexpr (kElement == Element::kQuad) {
      return QuadSums(tile.sums, weights_ + shape_.panel_offset(tile.place.panel, shape_.units),
                      scales_ + tile.place.row);
    } else {
      return FloatSums{tile.sums};
    }
  }

 private:
  static constexpr std::int64_t kRowsAtOnce = 2;

  SIGLIP2_INLINE auto rows_of(const UnfinishedTiles::Tile& tile) const {
    return finish_.rows(sums_of(tile), tile.place);
  }
  SIGLIP2_INLINE void finish_row() {
    rows_.next(gelu_);
    if (--rows_left_ == 0) waiting_.pop();
  }
  SIGLIP2_INLINE void finish_due() {
    if (rows_left_ == 0) {
      if (waiting_.empty()) return;
      rows_ = rows_of(waiting_.oldest());
      rows_left_ = waiting_.oldest().rows;
    }
    finish_row();
    if (rows_left_ != 0) finish_row();
  }

  UnfinishedTiles& waiting_;  // apart from the rest, which becomes registers
  const Finish& finish_;
  const PackedShape& shape_;
  const float* const weights_;
  const float* const scales_;
  const ShortGelu gelu_ = ShortGelu().kept();
  // Of the oldest tile that waits, once its first rows are due.
  decltype(std::declval<const Finish&>().rows(std::declval<const WorkBesideProduct&>().sums_of({}), {})) rows_;
  std::int64_t rows_left_ = 0;
  std::int64_t due_ = 0;
  const std::int64_t threshold_;  // a tile is finished in as many steps as one is multiplied in
  const float* next_ = nullptr;
  std::int64_t next_pairs_ = 0;
};

// As multiply_panels (ops/linear/packed_product.h), of at most 32 · kMostRowTiles rows. Panels for which
// finish.row_by_row(panel) says so are finished by finish.rows(sums, place) instead, of which next(gelu) is called for
// every row of a tile.
template <class Unit, Element kElement, typename Finish>
void multiply_panels_overlapped(const PackedWeight& weight, const PackedRows& input, const PanelRuns& panels,
                                float* sums, const Finish& finish) {
  constexpr std::int64_t kHeight = kMatrixUnitFormat.rows;
  const PackedShape shape = PackedShape::of(weight.in_features, weight.dtype);
  const std::int64_t units = shape.units, block_units = shape.units_of_block();
  const std::int64_t row_tiles = divide_up(input.rows, kHeight);
  const float* const weights = static_cast<const float*>(weight.data);
  // Places for a tile's sums, used in turn: a tile is finished while the next is multiplied, or the next panel's.
  constexpr std::int64_t kFewPlaces = 3;
  const std::int64_t places = units <= block_units ? kFewPlaces : 2 * row_tiles;
  UnfinishedTiles waiting;
  WorkBesideProduct<kElement, Finish> work(finish, shape, weights, input.scales, sums, waiting);

  for (std::int64_t p = 0; p < panels.count(); ++p) {
    const std::int64_t panel = panels[p];
    const std::int64_t panels_on = p + 1 < panels.count() ? panels[p + 1] - panel : 0;
    for (std::int64_t first = 0; first < units; first += block_units) {
      const std::int64_t depth = units - first < block_units ? units - first : block_units;
      const bool last = first + depth == units;
      const float* const columns = weights + shape.panel_offset(panel, first);
      if (last && panels_on == 0) {
        work.fetch(nullptr, 0);
      } else {
        work.fetch(last ? weights + shape.panel_offset(panel + panels_on, 0) : columns + depth * kTileColumns,
                   divide_up(block_units * kRegisterRows, row_tiles * depth));
      }
      for (std::int64_t tile = 0; tile < row_tiles; ++tile) {
        const std::int64_t row = tile * kHeight;
        const std::int64_t rows = input.rows - row < kHeight ? input.rows - row : kHeight;
        const std::int64_t index = p * row_tiles + tile;
        float* const tile_sums = sums + index % places * kHeight * kTileColumns;
        // What an earlier tile has left here: rows are finished about as fast as they come.
        work.finish_before(index - places + 1);
        const TileArgs args = {
            input.panels + row * units + first * kHeight, columns, depth, tile_sums, kTileColumns, first != 0};
        rows > kRegisterRows ? multiply_matrix_tile<Unit, kElement, true>(args, kKeptUnits, work)
                             : multiply_matrix_tile<Unit, kElement, false>(args, kKeptUnits, work);
        if (!last) continue;
        const bool last_tile = tile + 1 == row_tiles;
        const UnfinishedTiles::Tile complete = {
            tile_sums, index, rows, {row, panel, last_tile ? -row : kHeight, last_tile ? panels_on : 0}};
        if (finish.row_by_row(panel)) {
          work.push(complete);
        } else {
          finish.prefetch_rows(row, rows, panel);
          finish(work.sums_of(complete), ShortGelu(), row, rows, panel);
        }
      }
    }
  }
  work.finish_before(panels.count() * row_tiles);
}

}  // namespace siglip2::SIGLIP2_ISA

#endif
