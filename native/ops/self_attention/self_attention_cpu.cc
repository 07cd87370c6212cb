// The first half of a transformer block on CPUs.
//
// Plan. A task owns a block of whole sequences. It norms and packs their rows; then it takes a few heads at a time: the
// panels of the joint weight that make their queries, keys and values meet the rows, and attention follows while these
// lie in the L2 cache, in float32. What the heads make stays in float32 until all have been taken, and then takes the
// place of the packed rows for the output projection, whose tiles get bias and residual in the L1 cache.
//
// A block's rows are multiplied in chunks that stay in L2 while panel after panel passes by. A few heads have whole
// panels, where that is possible, since a panel that two groups of heads share is multiplied twice.
//
// Floor: 8·rows·width² operations for the layers, 4·keys·width for each row of a sequence of as many keys; the weights
// once for each block.
#include "ops/self_attention/self_attention.h"

#include "cpu/kernels.h"
#include "cpu/thread_pool.h"
#include "ops/attention/attention_head.h"
#include "ops/linear/finish_tile.h"
#include "ops/linear/packed_product.h"

namespace siglip2::SIGLIP2_ISA {
namespace {

constexpr std::int64_t kMostChunkRows = 256;
// Columns of heads that are taken together, at least: so many panels that what comes next is fetched in time.
constexpr std::int64_t kLeastGroupColumns = kGroupPanels * kTileColumns;

// As many heads as are taken at a time: of enough columns, and of whole panels if there are as many.
std::int64_t heads_of_group(int heads, int head_dim) {
  const std::int64_t enough = divide_up(kLeastGroupColumns, head_dim);
  for (std::int64_t count = enough; count <= heads; ++count)
    if (count * head_dim % kTileColumns == 0) return count;
  return smaller(enough, heads);
}

// Scratch of a task whose largest block has `rows` rows, in floats from its beginning.
struct Layout {
  PackedShape shape;  // of both weights
  std::int64_t chunk, group_heads, run;
  HeadAttention attention;
  std::int64_t packed, scales, normed, joint, attended, heads, end;

  Layout(const SelfAttentionArgs& args, std::int64_t rows)
      : shape(PackedShape::of(args.out_proj.in_features, args.out_proj.dtype)),
        chunk(kMostChunkRows / shape.format.rows * shape.format.rows),
        group_heads(heads_of_group(args.heads, args.head_dim())),
        attention(args.head_dim(), attention_product_type(DType::kFloat32, args.out_proj.dtype),
                  smaller(rows, most_queries_of(args.head_dim()))) {
    const std::int64_t width = args.out_proj.in_features, columns = group_heads * args.head_dim();
    // One more where a group does not begin with a panel.
    const bool whole = columns % kTileColumns == 0 && width % kTileColumns == 0;
    run = smaller(divide_up(columns, kTileColumns) + (whole ? 0 : 1), divide_up(3 * width, kTileColumns));
    std::int64_t used = sums_floats(shape, smaller(rows, chunk));
    const auto take = [&](std::int64_t& part, std::int64_t floats) {
      part = used;
      used += round_up(floats, 16);
    };
    take(packed, panels_floats(shape, rows));
    take(scales, tiled_rows(shape, rows));
    take(normed, shape.format.rows * width);
    take(joint, rows * joint_stride());
    take(attended, rows * width);
    take(heads, attention.scratch_floats());
    end = used;
  }
  std::int64_t joint_stride() const { return 3 * run * kTileColumns; }
};

// Queries, keys and values of some heads: runs of panels of the joint weight, the same number for each of the three.
struct HeadGroup {
  std::int64_t first_head, heads;
  PanelRuns panels;
  std::int64_t offsets[3];  // of the first head's columns from those of the run

  HeadGroup(const SelfAttentionArgs& args, const Layout& layout, std::int64_t first)
      : first_head(first), heads(smaller(layout.group_heads, args.heads - first)), panels{layout.run, {}, 3} {
    const std::int64_t width = args.out_proj.in_features, all = divide_up(3 * width, kTileColumns);
    for (int part = 0; part < 3; ++part) {
      const std::int64_t column = part * width + first_head * args.head_dim();
      panels.starts[part] = smaller(column / kTileColumns, all - layout.run);
      offsets[part] = column - panels.starts[part] * kTileColumns;
    }
  }
};

// Finished tiles of the joint weight's panels to rows of [rows][3 runs of columns], which stay in the L2 cache; see
// multiply_panels.
struct FinishJoint {
  const SelfAttentionArgs& args;
  const HeadGroup& group;
  float* joint;
  std::int64_t stride;

  template <typename Sums, typename Gelu>
  void operator()(const Sums& sums, const Gelu&, std::int64_t row, std::int64_t rows, std::int64_t panel) const {
    const TileBias bias(args.query_key_value_bias, args.query_key_value.out_features, panel);
    for_each_place(panel, [&](std::int64_t place) {
      float* const target = joint + row * stride + place * kTileColumns;
      for (std::int64_t i = 0; i < rows; ++i)
        for (int v = 0; v < kTileVectors; ++v)
          store(target + i * stride + v * kLanes, sums(i, v) + bias[v]);
    });
  }
  void prefetch_rows(std::int64_t, std::int64_t, std::int64_t) const {}

  template <typename Sums>
  struct Rows {
    TileRows<Sums> tile;

    SIGLIP2_INLINE void next(const ShortGelu&) {
      for (int v = 0; v < kTileVectors; ++v)
        store(tile.target + v * kLanes, tile[v]);
      tile.skip_row();
    }
  };
  // A panel in which one third ends and another begins may have two places.
  bool row_by_row(std::int64_t panel) const { return places_of(panel) == 1; }
  template <typename Sums>
  Rows<Sums> rows(const Sums& sums, const TilePlace& tile) const {
    float* target = joint;
    for_each_place(tile.panel, [&](std::int64_t place) { target = joint + tile.row * stride + place * kTileColumns; });
    return {{sums, {args.query_key_value_bias, args.query_key_value.out_features, tile.panel}, target, stride}};
  }

 private:
  template <typename Visit>
  SIGLIP2_INLINE void for_each_place(std::int64_t panel, const Visit& visit) const {
    for (int part = 0; part < 3; ++part) {
      const std::int64_t place = panel - group.panels.starts[part];
      if (place >= 0 && place < group.panels.length) visit(part * group.panels.length + place);
    }
  }
  int places_of(std::int64_t panel) const {
    int places = 0;
    for_each_place(panel, [&](std::int64_t) { ++places; });
    return places;
  }
};

class Block {
 public:
  Block(const SelfAttentionArgs& args, const Layout& layout, const SequenceBlock& block, float* scratch)
      : args_(args), layout_(layout), block_(block), scratch_(scratch) {}

  void run() const {
    pack_input();
    const MatrixUnitScope matrix_unit(args_.out_proj.dtype != DType::kFloat32);
    for (std::int64_t head = 0; head < args_.heads; head += layout_.group_heads) {
      const HeadGroup group(args_, layout_, head);
      for_each_chunk([&](std::int64_t row, const PackedRows& rows) {
        const std::int64_t stride = layout_.joint_stride();
        multiply_panels(args_.query_key_value, rows, group.panels, scratch_,
                        FinishJoint{args_, group, scratch_ + layout_.joint + row * stride, stride});
      });
      attend(group);
    }
    project();
  }

 private:
  std::int64_t width() const { return args_.out_proj.in_features; }

  template <typename Body>
  void for_each_chunk(const Body& body) const {
    for (std::int64_t row = 0; row < block_.rows; row += layout_.chunk)
      body(row, PackedRows{scratch_ + layout_.packed + row * layout_.shape.units * layout_.shape.format.row_words,
                           scratch_ + layout_.scales + row, smaller(layout_.chunk, block_.rows - row)});
  }

  void pack_input() const {
    pack_normed_rows(args_.query_key_value.dtype, layout_.shape,
                     args_.input.as<float>() + block_.first_row * args_.input.stride, args_.input.stride, width(),
                     args_.norm, {scratch_ + layout_.packed, scratch_ + layout_.scales, block_.rows},
                     scratch_ + layout_.normed);
  }

  // Attention of a group's heads in all sequences of the block; rows are counted from the block's first.
  void attend(const HeadGroup& group) const {
    const std::int64_t columns = group.heads * args_.head_dim(), stride = layout_.joint_stride();
    const auto part = [&](int index) {
      const std::int64_t column = index * layout_.run * kTileColumns + group.offsets[index];
      return ConstMatrixView(scratch_ + layout_.joint + column, DType::kFloat32, block_.rows, columns, stride);
    };
    AttentionArgs attention;
    attention.query = part(0);
    attention.key = part(1);
    attention.value = part(2);
    attention.head_dim = args_.head_dim();
    attention.scale = attention_scale(attention.head_dim);
    attention.output = {scratch_ + layout_.attended + group.first_head * args_.head_dim(), DType::kFloat32, block_.rows,
                        columns, width()};
    const std::int64_t tile = most_queries_of(args_.head_dim());
    for (std::int64_t sequence = block_.first; sequence < block_.end; ++sequence) {
      const std::int64_t row = args_.offsets[sequence] - block_.first_row;
      const std::int64_t length = args_.offsets[sequence + 1] - args_.offsets[sequence];
      for (std::int64_t head = 0; head < group.heads; ++head)
        for (std::int64_t query = 0; query < length; query += tile)
          layout_.attention.run(attention, {row, row, length, query, smaller(tile, length - query), head},
                                scratch_ + layout_.heads);
    }
  }

  void project() const {
    LinearArgs layer;
    layer.weight = args_.out_proj;
    layer.bias = args_.out_proj_bias;
    layer.residual = args_.residual;
    layer.output = args_.output;
    for_each_chunk([&](std::int64_t row, const PackedRows& rows) {
      pack_input_rows(layer.weight.dtype, {scratch_ + layout_.attended + row * width(), width()}, width(), rows);
      multiply_panels(layer.weight, rows, {divide_up(width(), kTileColumns), {0}}, scratch_,
                      FinishLinear{layer, block_.first_row + row});
    });
  }

  const SelfAttentionArgs& args_;
  const Layout& layout_;
  const SequenceBlock block_;
  float* const scratch_;
};

}  // namespace

void self_attention_cpu(OpContext& context, const SelfAttentionArgs& args) {
  const std::vector<SequenceBlock> blocks = self_attention_blocks(args.offsets, args.sequences, context.threads);
  std::int64_t most_rows = 0;
  for (const SequenceBlock& block : blocks)
    if (block.rows > most_rows) most_rows = block.rows;
  const Layout layout(args, most_rows);
  cpu::parallel_for(static_cast<std::int64_t>(blocks.size()), context.threads, [&](std::int64_t index, int worker) {
    const auto bytes = static_cast<std::size_t>(layout.end) * sizeof(float);
    float* const scratch = static_cast<float*>(cpu::worker_scratch(worker, bytes));
    Block(args, layout, blocks[static_cast<std::size_t>(index)], scratch).run();
  });
}

}  // namespace siglip2::SIGLIP2_ISA
