// Text embeddings on GPUs.
//
// Floor: one read of the chosen rows of the table and one write. 1024 texts of 64 tokens, width 768, bfloat16: 2 · 101
// MB, 61 µs of an H100's 3.3 TB/s; positions stay in the caches.
//
// Plan: a thread makes eight values, with the widest accesses where all rows are aligned. Ids are uploaded.
//
// Backward. Floor: one read of grad_output for each of the two gradients, one read and write of them.
//
// Plan: both gradients are sums over lists of rows: those of a slot, those of a position. The host groups rows by slot
// (counting sort: rows of a slot stay in order) and cuts long lists into pieces of 128 rows, because some are very
// long: every padding token is in one. A thread sums four columns of a piece, neighbouring threads neighbouring
// columns, with several rows in flight. A list of one piece is added to the gradient at once; pieces of longer lists
// leave their sums (with their rounding errors: see cuda/compensated_sum.h) in scratch memory, and a second kernel adds
// those in order. So the order of every sum depends on the list alone.
#include "ops/token_embedding/token_embedding.h"

#include <vector>

#include "cuda/activations.h"
#include "cuda/compensated_sum.h"
#include "cuda/dtype_switch.h"
#include "cuda/kernels.h"
#include "cuda/prim/bounds.h"
#include "cuda/prim/float16.h"
#include "cuda/prim/launch.h"
#include "cuda/table_pack.h"

namespace siglip2::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kValues = 8;   // of one thread, forward
constexpr int kColumns = 4;  // of one thread, backward
constexpr int kPieceRows = 128;

std::int64_t divide_up(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

template <typename Entry, typename T, bool kAligned>
__global__ void __launch_bounds__(kThreads)
    token_embedding_kernel(const std::int32_t* ids, const Entry* table, std::int64_t table_stride,
                           const float* positions, int length, T* output, std::int64_t output_stride, std::int64_t rows,
                           int width, int groups_per_row) {
  const std::int64_t group = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const std::int64_t row = group / groups_per_row;
  if (!in_bounds(row < rows)) return;
  const int first = static_cast<int>(group % groups_per_row) * kValues;
  const Entry* const entry = table + ids[row] * table_stride + first;
  const float* const position = positions + row % length * width + first;
  T* const to = output + row * output_stride + first;
  if (kAligned && in_bounds(first + kValues <= width)) {
    float values[kValues];
    float offsets[kValues];
    load_floats(entry, values);
    load_floats(position, offsets);
#pragma unroll
    for (int i = 0; i < kValues; ++i)
      values[i] += offsets[i];
    store_floats(to, values);
    return;
  }
#pragma unroll
  for (int i = 0; i < kValues; ++i) {
    if (in_bounds(first + i < width)) to[i] = from_float<T>(to_float(entry[i]) + position[i]);
  }
}

template <typename Entry, typename T>
void embed(OpContext& context, const TokenEmbeddingArgs& args) {
  Scratch scratch(context);
  const std::int64_t rows = args.output.rows;
  const std::int64_t width = args.output.columns;
  const std::int64_t groups_per_row = divide_up(width, kValues);
  const std::int32_t* const ids = scratch.upload(args.ids, rows);
  const bool aligned = rows_aligned(args.table.data, args.table.stride, sizeof(Entry)) &&
                       rows_aligned(args.positions, width, sizeof(float)) &&
                       rows_aligned(args.output.data, args.output.stride, sizeof(T));
  launch(context, "token_embedding",
         aligned ? token_embedding_kernel<Entry, T, true> : token_embedding_kernel<Entry, T, false>,
         {divide_up(rows * groups_per_row, kThreads), kThreads},
         {reads(ids, rows), reads(args.table), reads(args.positions, args.length * width), writes(args.output)}, ids,
         args.table.as<Entry>(), args.table.stride, args.positions, args.length, args.output.as<T>(),
         args.output.stride, rows, width, groups_per_row);
}

// Part of a list of rows, [begin, end), whose sum goes to row `target` of the gradient, or to row `partial` of the
// partial sums if that is not negative.
struct Piece {
  std::int32_t begin;
  std::int32_t end;
  std::int32_t target;
  std::int32_t partial;
};

// Partial sums [first, first + count) of row `target` of the gradient.
struct Combination {
  std::int32_t target;
  std::int32_t first;
  std::int32_t count;
};

template <int kCount>
__device__ __forceinline__ void add_all(CompensatedSum (&sums)[kCount], const float (&values)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i)
    sums[i].add(values[i]);
}

// Partial sums: [pieces, 2, width], sums and what they lack.
template <typename T, int kCount>
__global__ void __launch_bounds__(kThreads)
    sum_rows_kernel(const Piece* pieces, std::int64_t piece_count, const std::int32_t* lists, const T* rows,
                    std::int64_t stride, int width, float* gradient, float* partial) {
  const int vectors = width / kCount;
  const std::int64_t task = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (!in_bounds(task < piece_count * vectors)) return;
  const Piece& piece = pieces[task / vectors];
  const int column = static_cast<int>(task % vectors) * kCount;
  float* const target = gradient + std::int64_t{piece.target} * width + column;
  CompensatedSum sums[kCount];
  float values[kCount];
  if (piece.partial < 0) {
    load_floats(target, values);
    add_all(sums, values);
  }
  const int end = piece.end;
#pragma unroll 4
  for (int i = piece.begin; i < end; ++i) {
    load_floats(rows + lists[i] * stride + column, values);
    add_all(sums, values);
  }
  if (piece.partial < 0) {
#pragma unroll
    for (int i = 0; i < kCount; ++i)
      values[i] = sums[i].sum + sums[i].low;
    store_floats(target, values);
  } else {
    float* const to = partial + std::int64_t{piece.partial} * 2 * width + column;
    float errors[kCount];
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      values[i] = sums[i].sum;
      errors[i] = sums[i].low;
    }
    store_floats(to, values);
    store_floats(to + width, errors);
  }
}

template <int kCount>
__global__ void __launch_bounds__(kThreads) combine_sums_kernel(const Combination* combinations, std::int64_t count,
                                                                const float* partial, int width, float* gradient) {
  const int vectors = width / kCount;
  const std::int64_t task = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (!in_bounds(task < count * vectors)) return;
  const Combination& combination = combinations[task / vectors];
  const int column = static_cast<int>(task % vectors) * kCount;
  float* const target = gradient + std::int64_t{combination.target} * width + column;
  CompensatedSum sums[kCount];
  float values[kCount];
  load_floats(target, values);
  add_all(sums, values);
  const float* from = partial + std::int64_t{combination.first} * 2 * width + column;
  const int pieces = combination.count;
#pragma unroll 4
  for (int i = 0; i < 2 * pieces; ++i, from += width) {
    load_floats(from, values);
    add_all(sums, values);
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i)
    values[i] = sums[i].sum + sums[i].low;
  store_floats(target, values);
}

// Lists of rows one after the other: list i is rows[starts[i]] to rows[starts[i + 1] − 1].
struct RowLists {
  std::vector<std::int32_t> starts;
  std::vector<std::int32_t> rows;
};

RowLists lists_of_slots(const std::int32_t* slots, std::int64_t slot_count, std::int64_t rows) {
  RowLists lists = {std::vector<std::int32_t>(static_cast<std::size_t>(slot_count + 1)),
                    std::vector<std::int32_t>(static_cast<std::size_t>(rows))};
  for (std::int64_t row = 0; row < rows; ++row)
    ++lists.starts[static_cast<std::size_t>(slots[row]) + 1];
  for (std::size_t slot = 0; slot < static_cast<std::size_t>(slot_count); ++slot)
    lists.starts[slot + 1] += lists.starts[slot];
  std::vector<std::int32_t> next = lists.starts;
  for (std::int64_t row = 0; row < rows; ++row)
    lists.rows[static_cast<std::size_t>(next[static_cast<std::size_t>(slots[row])]++)] = static_cast<std::int32_t>(row);
  return lists;
}

RowLists lists_of_positions(std::int64_t length, std::int64_t rows) {
  RowLists lists;
  for (std::int64_t position = 0; position < length; ++position) {
    lists.starts.push_back(static_cast<std::int32_t>(lists.rows.size()));
    for (std::int64_t row = position; row < rows; row += length)
      lists.rows.push_back(static_cast<std::int32_t>(row));
  }
  lists.starts.push_back(static_cast<std::int32_t>(lists.rows.size()));
  return lists;
}

template <typename T, int kCount>
void add_lists(OpContext& context, const RowLists& lists, const ConstMatrixView& rows, float* gradient) {
  std::vector<Piece> pieces;
  std::vector<Combination> combinations;
  std::int32_t partials = 0;
  for (std::size_t list = 0; list + 1 < lists.starts.size(); ++list) {
    const std::int32_t begin = lists.starts[list];
    const std::int32_t end = lists.starts[list + 1];
    const auto target = static_cast<std::int32_t>(list);
    const bool is_long = end - begin > kPieceRows;
    if (is_long) combinations.push_back({target, partials, 0});
    for (std::int32_t first = begin; first < end; first += kPieceRows) {
      pieces.push_back({first, first + kPieceRows < end ? first + kPieceRows : end, target, is_long ? partials++ : -1});
      if (is_long) ++combinations.back().count;
    }
  }
  const std::int64_t width = rows.columns;
  const std::int64_t partial_floats = std::int64_t{partials} * 2 * width;
  const auto piece_count = static_cast<std::int64_t>(pieces.size());
  const auto combination_count = static_cast<std::int64_t>(combinations.size());
  const auto gradient_floats = (static_cast<std::int64_t>(lists.starts.size()) - 1) * width;
  TablePack pack;
  const auto piece_place = pack.add(pieces);
  const auto combination_place = pack.add(combinations);
  const auto list_place = pack.add(lists.rows);
  Scratch scratch(context);
  const TableMemory memory(context, scratch, pack, partial_floats * static_cast<std::int64_t>(sizeof(float)));
  float* const partial = memory.rest<float>();
  const std::int64_t vectors = width / kCount;
  launch(context, "sum_rows", sum_rows_kernel<T, kCount>, {divide_up(piece_count * vectors, kThreads), kThreads},
         {reads(memory.at(piece_place), piece_count), reads(memory.at(list_place), list_place.count), reads(rows),
          writes(gradient, gradient_floats), writes(partial, partial_floats)},
         memory.at(piece_place), piece_count, memory.at(list_place), rows.as<T>(), rows.stride, width, gradient,
         partial);
  launch(context, "combine_sums", combine_sums_kernel<kCount>,
         {divide_up(combination_count * vectors, kThreads), kThreads},
         {reads(memory.at(combination_place), combination_count), reads(partial, partial_floats),
          writes(gradient, gradient_floats)},
         memory.at(combination_place), combination_count, partial, width, gradient);
}

void add_lists(OpContext& context, const RowLists& lists, const ConstMatrixView& rows, float* gradient) {
  with_activation_type(rows.dtype, [&](auto type) {
    using T = decltype(type);
    const bool vectors = rows.columns % kColumns == 0 && rows_aligned(gradient, rows.columns, sizeof(float)) &&
                         rows_aligned(rows.data, rows.stride, sizeof(T), kColumns * sizeof(T));
    if (vectors) {
      add_lists<T, kColumns>(context, lists, rows, gradient);
    } else {
      add_lists<T, 1>(context, lists, rows, gradient);
    }
  });
}

}  // namespace

void token_embedding_cuda(OpContext& context, const TokenEmbeddingArgs& args) {
  with_activation_type(args.output.dtype, [&](auto type) {
    using T = decltype(type);
    if (args.table.dtype == DType::kFloat32) {
      embed<float, T>(context, args);
    } else if (args.table.dtype == DType::kBFloat16) {
      embed<bfloat16, T>(context, args);
    } else {
      embed<float16, T>(context, args);
    }
  });
}

void token_embedding_backward_cuda(OpContext& context, const TokenEmbeddingBackwardArgs& args) {
  const std::int64_t rows = args.grad_output.rows;
  if (args.grad_table != nullptr) {
    add_lists(context, lists_of_slots(args.slots, args.slot_count, rows), args.grad_output, args.grad_table);
  }
  if (args.grad_positions != nullptr) {
    add_lists(context, lists_of_positions(args.length, rows), args.grad_output, args.grad_positions);
  }
}

}  // namespace siglip2::cuda
