// Packing of weights on GPUs: change of type, stacking, and transposition where the gradient of a layer's input wants
// it. The layout is that of packed_weight.cuh.
//
// Floor: one read of the parts, over the bus where they are in host memory, and one write of the packed weight.
//
// Plan: parts in host memory, which may be a mapped file, go through a piece of scratch memory of a few megabytes; the
// kernels read that, or parts in device memory where they are. Rows: a thread writes eight values, and reads them in
// one access where they are aligned. Transposed: a block turns 32 × 32 values in shared memory, whose lines are one
// element longer, so that neither way meets bank conflicts. Padding is written by the thread that comes to it.
#include <algorithm>
#include <bit>
#include <cstring>

#include "cuda/dtype_switch.h"
#include "cuda/kernels.h"
#include "cuda/prim/barrier.h"
#include "cuda/prim/bounds.h"
#include "cuda/prim/launch.h"
#include "cuda/prim/shared_memory.h"
#include "cuda/prim/vector.h"
#include "cuda/prim/warp.h"
#include "cuda/scratch.h"
#include "ops/linear/packed_weight.cuh"

namespace siglip2::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kValues = 8;  // of a thread
constexpr int kTile = 32;
constexpr std::int64_t kPieceBytes = std::int64_t{8} << 20;

struct float16 {
  std::uint16_t bits;
};

// Exact, also for subnormals: the exponent's bias is corrected by a multiplication.
__device__ __forceinline__ float to_float(float16 value) {
  const std::uint32_t sign = static_cast<std::uint32_t>(value.bits & 0x8000) << 16;
  const std::uint32_t magnitude = static_cast<std::uint32_t>(value.bits & 0x7FFF) << 13;
  if (magnitude >= 0x0F800000) return std::bit_cast<float>(sign | magnitude | 0x7F800000);
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112f));
}
using cuda::to_float;

// Rows of a part, dense or not, and where they go.
template <typename In>
struct Piece {
  const In* data;
  std::int64_t stride;
  std::int64_t rows;
  std::int64_t columns;
};

// `packed`: the row of the packed weight that the piece's first one becomes.
template <typename In, typename Out, bool kAligned>
__global__ void __launch_bounds__(kThreads)
    pack_rows_kernel(Piece<In> piece, Out* packed, std::int64_t groups_of_row, std::int64_t groups) {
  const std::int64_t group = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (!in_bounds(group < groups)) return;
  const std::int64_t row = group / groups_of_row;
  const std::int64_t column = group % groups_of_row * kValues;
  const In* const from = piece.data + row * piece.stride + column;
  Vector<In, kWidest<In>> part;
  Vector<Out, kWidest<Out>> result;
  Out* const to = packed + group * kValues;
#pragma unroll
  for (int i = 0; i < kValues; ++i) {
    float value = 0;
    if constexpr (kAligned) {
      if (i % kWidest<In> == 0) part = load_vector<kWidest<In>>(from + i);
      value = to_float(part[i % kWidest<In>]);
    } else if (in_bounds(column + i < piece.columns)) {
      value = to_float(from[i]);
    }
    result[i % kWidest<Out>] = from_float<Out>(value);
    if (i % kWidest<Out> == kWidest<Out> - 1) store_vector(to + i / kWidest<Out> * kWidest<Out>, result);
  }
}

// `packed`: the column that the piece's first row becomes; the piece writes `written` of them, zeros beyond its rows.
template <typename In, typename Out>
__global__ void __launch_bounds__(kThreads)
    pack_transposed_kernel(Piece<In> piece, Out* packed, std::int64_t packed_stride, std::int64_t written) {
  Out* const tile = reinterpret_cast<Out*>(shared_memory());
  const std::int64_t first_row = std::int64_t{blockIdx.x} * kTile;
  const std::int64_t first_column = std::int64_t{blockIdx.y} * kTile;
  const int lane = lane_index();
  const bool column_exists = in_bounds(first_column + lane < piece.columns);
#pragma unroll
  for (int i = warp_index(); i < kTile; i += kThreads / kWarpSize) {
    float value = 0;
    if (column_exists && in_bounds(first_row + i < piece.rows))
      value = to_float(piece.data[(first_row + i) * piece.stride + first_column + lane]);
    tile[i * (kTile + 1) + lane] = from_float<Out>(value);
  }
  block_barrier();
  const bool row_written = in_bounds(first_row + lane < written);
#pragma unroll
  for (int i = warp_index(); i < kTile; i += kThreads / kWarpSize) {
    if (row_written && in_bounds(first_column + i < piece.columns))
      packed[(first_column + i) * packed_stride + first_row + lane] = tile[lane * (kTile + 1) + i];
  }
}

// Where the rows of a piece go in the packed weight.
template <typename Out>
struct Target {
  Out* packed;
  std::int64_t stacked_rows;
  std::int64_t columns;
  bool transpose;
};

template <typename In, typename Out>
void pack_piece(OpContext& context, const Piece<In>& piece, const Target<Out>& target, std::int64_t first_row) {
  const Access source = reads(ConstMatrixView(piece.data, sizeof(In) == 4 ? DType::kFloat32 : DType::kBFloat16,
                                              piece.rows, piece.columns, piece.stride));
  if (target.transpose) {
    const std::int64_t stride = packed_row(target.stacked_rows);
    const std::int64_t written = first_row + piece.rows == target.stacked_rows ? stride - first_row : piece.rows;
    launch(context, "pack_weight", pack_transposed_kernel<In, Out>,
           {(written + kTile - 1) / kTile, kThreads, kTile * (kTile + 1) * sizeof(Out),
            (piece.columns + kTile - 1) / kTile},
           {source, writes(MatrixView{target.packed + first_row, sizeof(Out) == 4 ? DType::kFloat32 : DType::kBFloat16,
                                      piece.columns, written, stride})},
           piece, target.packed + first_row, stride, written);
    return;
  }
  const std::int64_t groups_of_row = packed_row(piece.columns) / kValues;
  const std::int64_t groups = groups_of_row * piece.rows;
  Out* const to = target.packed + first_row * packed_row(piece.columns);
  const bool aligned = rows_aligned(piece.data, piece.stride, sizeof(In)) && piece.columns % kValues == 0;
  launch(context, "pack_weight", aligned ? pack_rows_kernel<In, Out, true> : pack_rows_kernel<In, Out, false>,
         {(groups + kThreads - 1) / kThreads, kThreads}, {source, writes(to, groups * kValues)}, piece, to,
         groups_of_row, groups);
}

// Host memory of any alignment, a piece after the other.
template <typename In, typename Out>
void pack_host_part(OpContext& context, const ConstMatrixView& part, void* staging, std::int64_t staging_bytes,
                    const Target<Out>& target, std::int64_t first_row) {
  const std::int64_t row_bytes = part.columns * static_cast<std::int64_t>(sizeof(In));
  const std::int64_t stride_bytes = part.stride * static_cast<std::int64_t>(sizeof(In));
  const std::int64_t most = staging_bytes / row_bytes;
  for (std::int64_t row = 0; row < part.rows; row += most) {
    const std::int64_t rows = std::min(most, part.rows - row);
    const char* const from = static_cast<const char*>(part.data) + row * stride_bytes;
    const bool dense = stride_bytes == row_bytes;
    for (std::int64_t i = 0; i < (dense ? 1 : rows) && !context.planning; ++i) {
      runtime::stage_to_device(context, static_cast<char*>(staging) + i * row_bytes, from + i * stride_bytes,
                               static_cast<std::size_t>(dense ? rows * row_bytes : row_bytes));
    }
    pack_piece<In, Out>(context, {static_cast<const In*>(staging), part.columns, rows, part.columns}, target,
                        first_row + row);
  }
}

template <typename Out>
void pack(OpContext& context, const PackWeightArgs& args) {
  Target<Out> target = {static_cast<Out*>(args.packed), 0, args.parts[0].columns, args.transpose};
  std::int64_t staging_bytes = 0;
  for (int i = 0; i < args.part_count; ++i) {
    const ConstMatrixView& part = args.parts[i];
    const std::int64_t row_bytes = part.columns * static_cast<std::int64_t>(size_of(part.dtype));
    target.stacked_rows += part.rows;
    staging_bytes = std::max({staging_bytes, std::min(part.rows * row_bytes, kPieceBytes), row_bytes});
  }
  Scratch scratch(context);
  void* const staging = args.parts_on_device ? nullptr : scratch.allocate<unsigned char>(staging_bytes);
  std::int64_t first_row = 0;
  for (int i = 0; i < args.part_count; ++i) {
    const ConstMatrixView& part = args.parts[i];
    const auto with = [&](auto type) {
      using In = decltype(type);
      if (args.parts_on_device) {
        pack_piece<In, Out>(context, {part.as<In>(), part.stride, part.rows, part.columns}, target, first_row);
      } else {
        pack_host_part<In, Out>(context, part, staging, staging_bytes, target, first_row);
      }
    };
    if (part.dtype == DType::kFloat32) {
      with(float{});
    } else if (part.dtype == DType::kFloat16) {
      with(float16{});
    } else {
      with(bfloat16{});
    }
    first_row += part.rows;
  }
}

}  // namespace

std::size_t packed_weight_bytes_cuda(std::int64_t out_features, std::int64_t in_features, DType dtype) {
  return static_cast<std::size_t>(out_features * packed_row(in_features)) * size_of(dtype);
}

void pack_weight_cuda(OpContext& context, const PackWeightArgs& args) {
  with_activation_type(args.dtype, [&](auto type) { pack<decltype(type)>(context, args); });
}

}  // namespace siglip2::cuda
