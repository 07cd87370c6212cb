// The MLP of a transformer block on CPUs.
//
// Plan. A task owns a block of rows. It norms and packs them, and multiplies them by all panels of fc1; a finished tile
// gets bias and GELU in the L1 cache and is packed at once as rows of fc2, so that the block's hidden activations, and
// nothing else of that size, lie in the L2 cache when all panels of fc2 meet them. In int8 the hidden rows stay float32
// until they are whole, since their scales follow from their largest values. Blocks have as many rows as keep that in
// L2, within limits: each block reads all weights once, from L3 or memory. Blocks do not change results.
//
// Floor: 4·rows·width·intermediate operations, and the weights once for each block.
#include "ops/mlp/mlp.h"

#include <type_traits>

#include "cpu/caches.h"
#include "cpu/kernels.h"
#include "cpu/thread_pool.h"
#include "ops/linear/finish_tile.h"
#include "ops/linear/packed_product.h"

namespace siglip2::SIGLIP2_ISA {
namespace {

constexpr std::int64_t kLeastRows = 64;
constexpr std::int64_t kMostRows = 256;
constexpr std::int64_t kMostFloatRows = 128;  // where hidden rows stay float32 until they are whole

// Scratch of a block of `rows` rows, in floats from its beginning.
struct Layout {
  PackedShape fc1, fc2;
  std::int64_t hidden_stride;  // of hidden rows in float32; 0 where they are packed at once
  std::int64_t input, input_scales, hidden, hidden_scales, hidden_rows, normed, tile, end;

  Layout(const MlpArgs& args, std::int64_t rows)
      : fc1(PackedShape::of(args.fc1.in_features, args.fc1.dtype)),
        fc2(PackedShape::of(args.fc2.in_features, args.fc2.dtype)) {
    const std::int64_t height = fc1.format.rows, tiled = divide_up(tiled_rows(fc1, rows), 16) * 16;
    hidden_stride = args.fc1.dtype == DType::kInt8 ? divide_up(args.fc1.out_features, 16) * 16 : 0;
    std::int64_t used = sums_floats(fc1, rows);
    const auto take = [&](std::int64_t& part, std::int64_t floats) {
      part = used;
      used += divide_up(floats, 16) * 16;
    };
    take(input, panels_floats(fc1, rows));
    take(input_scales, tiled);
    take(hidden, panels_floats(fc2, rows));
    take(hidden_scales, tiled);
    take(hidden_rows, rows * hidden_stride);
    take(normed, height * args.fc1.in_features);
    take(tile, height * kTileColumns * 2 + kLanes);
    end = used;
  }
};

// Finished tiles of fc1 to the packed rows of fc2, which stay in the L2 cache; see multiply_panels. In int8 they stay
// float32, [rows][hidden_stride], until rows are whole.
struct FinishHidden {
  const MlpArgs& args;
  const Layout& layout;
  float* scratch;

  // By way of the sums' memory.
  template <typename Sums, typename Gelu>
  void operator()(const Sums& sums, const Gelu& gelu, std::int64_t row, std::int64_t rows, std::int64_t panel) const {
    const std::int64_t first = panel * kTileColumns, left = args.fc1.out_features - first;
    const std::int64_t columns = left < kTileColumns ? left : kTileColumns;
    const TileBias bias(args.fc1_bias, args.fc1.out_features, panel);
    for (std::int64_t i = 0; i < rows; ++i)
      for (int v = 0; v < kTileVectors; ++v)
        store(sums.sums + i * kTileColumns + v * kLanes, gelu(sums(i, v) + bias[v]));
    float* const target = target_of(row, panel);
    if (layout.hidden_stride != 0) {
      for (std::int64_t i = 0; i < rows; ++i)
        std::memcpy(target + i * layout.hidden_stride, sums.sums + i * kTileColumns,
                    static_cast<std::size_t>(columns) * sizeof(float));
      return;
    }
    if (left > kTileColumns)
      return pack_input_rows(args.fc2.dtype, {sums.sums, kTileColumns}, columns, {target, nullptr, rows});
    // Packing writes a few floats too many, which behind a tile's last panel are the next tile's first.
    float* const tile = scratch + layout.tile;
    pack_input_rows(args.fc2.dtype, {sums.sums, kTileColumns}, columns, {tile, nullptr, rows});
    const std::int64_t units = layout.fc2.units - first / layout.fc2.values_of_unit;
    std::memcpy(target, tile,
                static_cast<std::size_t>(units * layout.fc2.format.rows * layout.fc2.format.row_words) * sizeof(float));
  }
  void prefetch_rows(std::int64_t, std::int64_t, std::int64_t) const {}

#if defined(SIGLIP2_MATRIX_UNIT)
  template <typename Sums>
  struct Rows {
    TileRows<Sums> tile;

    SIGLIP2_INLINE void next(const ShortGelu& gelu) {
      const Vec first = gelu(tile[0]), second = gelu(tile[1]);
      if constexpr (std::is_same_v<Sums, QuadSums>) {
        store(tile.target, first);
        store(tile.target + kLanes, second);
      } else {
        store_pair_words(first, second, tile.target);
      }
      tile.skip_row();
    }
  };
  bool row_by_row(std::int64_t panel) const { return (panel + 1) * kTileColumns <= args.fc1.out_features; }
  template <typename Sums>
  Rows<Sums> rows(const Sums& sums, const TilePlace& place) const {
    return {{sums,
             {args.fc1_bias, args.fc1.out_features, place.panel},
             target_of(place.row, place.panel),
             layout.hidden_stride != 0 ? layout.hidden_stride : layout.fc2.format.step}};
  }
#endif

 private:
  // `row` is the first of a tile.
  float* target_of(std::int64_t row, std::int64_t panel) const {
    const std::int64_t first = panel * kTileColumns;
    if (layout.hidden_stride != 0) return scratch + layout.hidden_rows + row * layout.hidden_stride + first;
    const TileFormat& format = layout.fc2.format;
    const std::int64_t units = row * layout.fc2.units + first / layout.fc2.values_of_unit * format.rows;
    return scratch + layout.hidden + units * format.row_words;
  }
};

void run_block(const MlpArgs& args, const Layout& layout, std::int64_t first_row, std::int64_t rows, float* scratch) {
  const PackedRows input = {scratch + layout.input, scratch + layout.input_scales, rows};
  pack_normed_rows(args.fc1.dtype, layout.fc1, args.input.as<float>() + first_row * args.input.stride,
                   args.input.stride, args.fc1.in_features, args.norm, input, scratch + layout.normed);
  const PackedRows hidden = {scratch + layout.hidden, scratch + layout.hidden_scales, rows};
  const MatrixUnitScope matrix_unit(args.fc1.dtype != DType::kFloat32);
  multiply_panels(args.fc1, input, {divide_up(args.fc1.out_features, kTileColumns), {0}}, scratch,
                  FinishHidden{args, layout, scratch});
  if (layout.hidden_stride != 0)
    pack_input_rows(args.fc2.dtype, {scratch + layout.hidden_rows, layout.hidden_stride}, args.fc2.in_features, hidden);
  LinearArgs second;
  second.weight = args.fc2;
  second.bias = args.fc2_bias;
  second.residual = args.residual;
  second.output = args.output;
  multiply_panels(args.fc2, hidden, {divide_up(args.fc2.out_features, kTileColumns), {0}}, scratch,
                  FinishLinear{second, first_row});
}

// How rows are cut into blocks: whole tiles, as evenly as that allows, so that all threads have as much to do.
struct Cut {
  std::int64_t rows, height, tiles, blocks;

  // As many rows as fit three quarters of the L2 cache, and as many blocks for every thread. Hidden rows in float32 do
  // not count: they are written and read once, and what leaves the cache costs less than smaller blocks, which would
  // read the weights more often.
  Cut(const MlpArgs& args, int threads) : rows(args.input.rows), height(Layout(args, 1).fc1.format.rows) {
    const Layout one(args, height), two(args, 2 * height);
    const std::int64_t floats_of_tile = two.end - one.end - height * one.hidden_stride;
    const std::int64_t limit = one.hidden_stride != 0 ? kMostFloatRows : kMostRows;
    std::int64_t most =
        cpu::level2_cache_bytes() * 3 / 4 / static_cast<std::int64_t>(sizeof(float)) * height / floats_of_tile;
    most = most < kLeastRows ? kLeastRows : most > limit ? limit : most;
    tiles = divide_up(rows, height);
    blocks = divide_up(tiles, most / height * threads) * threads;
    if (blocks > tiles) blocks = tiles;
  }

  std::int64_t most_rows() const { return divide_up(tiles, blocks) * height; }
  // Of block `index`; the end of the last one for `blocks`.
  std::int64_t first_row(std::int64_t index) const { return index == blocks ? rows : tiles * index / blocks * height; }
};

}  // namespace

void mlp_cpu(OpContext& context, const MlpArgs& args) {
  const Cut cut(args, context.threads);
  const Layout layout(args, cut.most_rows());
  cpu::parallel_for(cut.blocks, context.threads, [&](std::int64_t index, int worker) {
    const std::int64_t first = cut.first_row(index);
    const auto bytes = static_cast<std::size_t>(layout.end) * sizeof(float);
    run_block(args, layout, first, cut.first_row(index + 1) - first,
              static_cast<float*>(cpu::worker_scratch(worker, bytes)));
  });
}

}  // namespace siglip2::SIGLIP2_ISA
