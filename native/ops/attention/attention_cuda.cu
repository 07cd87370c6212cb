// Attention on GPUs, forward: which kernel takes a call.
#include "ops/attention/attention_forward_general.cuh"
#include "ops/attention/attention_forward_mma.cuh"

#include "cuda/dtype_switch.h"
#include "cuda/kernels.h"
#include "cuda/prim/launch.h"
#include "cuda/scratch.h"
#include "tensor/error.h"

namespace siglip2::cuda {
namespace {

// Rows of queries that tiles of `tile_rows` compute.
std::int64_t padded_queries(const AttentionInputs& args, std::int64_t tile_rows) {
  std::int64_t rows = 0;
  for (std::int64_t s = 0; s < args.sequences; ++s) {
    const std::int64_t queries = args.query_offsets[s + 1] - args.query_offsets[s];
    rows += (queries + tile_rows - 1) / tile_rows * tile_rows;
  }
  return rows;
}

template <int kHeadDim, int kRowTiles>
void start_mma(OpContext& context, const AttentionArgs& args) {
  using Shape = ForwardShape<kHeadDim, kRowTiles>;
  Scratch scratch(context);
  const std::vector<AttentionWork> work = query_work(args, Shape::kQueries);
  const auto items = static_cast<std::int64_t>(work.size());
  const AttentionWork* const device_work = scratch.upload(work.data(), items);
  const std::int64_t tiles = (most_keys(args, work) + kForwardKeys - 1) / kForwardKeys;
  AttentionForwardParameters parameters{device_work,
                                        args.query.as<bfloat16>(),
                                        args.key.as<bfloat16>(),
                                        args.value.as<bfloat16>(),
                                        args.output.as<bfloat16>(),
                                        args.log_sum_exp.as<float>(),
                                        static_cast<int>(args.query.stride),
                                        static_cast<int>(args.key.stride),
                                        static_cast<int>(args.value.stride),
                                        args.output.stride,
                                        args.log_sum_exp.stride,
                                        args.heads,
                                        Shape::query_stage(tiles),
                                        args.causal,
                                        args.scale * kLog2E,
                                        std::min(8.0f / (args.scale * kLog2E), 1e30f)};
  launch(context, "attention", attention_forward_kernel<kHeadDim, kRowTiles>,
         {items * args.heads, kForwardThreads, Shape::shared_bytes(tiles)},
         {reads(device_work, items), reads(args.query), reads(args.key), reads(args.value), writes(args.output),
          writes(args.log_sum_exp)},
         parameters);
}

template <typename T, int kPairs>
void start_general(OpContext& context, const AttentionArgs& args) {
  using Shape = GeneralShape<kPairs>;
  Scratch scratch(context);
  const std::vector<AttentionWork> work = query_work(args, Shape::kTileRows);
  const auto items = static_cast<std::int64_t>(work.size());
  const AttentionWork* const device_work = scratch.upload(work.data(), items);
  const auto aligned = [&](const ConstMatrixView& view) { return rows_aligned(view.data, view.stride, sizeof(T)); };
  AttentionGeneralParameters<T> parameters{
      device_work,
      args.query.as<T>(),
      args.key.as<T>(),
      args.value.as<T>(),
      args.output.as<T>(),
      args.log_sum_exp.as<float>(),
      args.query.stride,
      args.key.stride,
      args.value.stride,
      args.output.stride,
      args.log_sum_exp.stride,
      args.heads,
      args.head_dim,
      args.causal,
      args.head_dim % kWidest<T> == 0 && aligned(args.query) && aligned(args.key) && aligned(args.value),
      args.scale * kLog2E};
  launch(context, "attention_general", attention_forward_general_kernel<T, kPairs>,
         {items * args.heads, kGeneralThreads, Shape::kSharedBytes},
         {reads(device_work, items), reads(args.query), reads(args.key), reads(args.value), writes(args.output),
          writes(args.log_sum_exp)},
         parameters);
}

template <typename T>
void start_general(OpContext& context, const AttentionArgs& args) {
  if (args.head_dim <= 64) return start_general<T, 2>(context, args);
  if (args.head_dim <= 96) return start_general<T, 3>(context, args);
  if (args.head_dim <= 128) return start_general<T, 4>(context, args);
  start_general<T, 8>(context, args);
}

// Whether two row tiles a warp do not make rows to compute many more; see attention_forward_mma.cuh.
bool suits_long_tiles(const AttentionInputs& args) {
  if (args.length_bound > 0) return args.length_bound > 64;
  return 4 * padded_queries(args, 128) <= 5 * padded_queries(args, 64);
}

template <int kHeadDim>
void start_mma(OpContext& context, const AttentionArgs& args) {
  if (suits_long_tiles(args)) {
    start_mma<kHeadDim, 2>(context, args);
  } else {
    start_mma<kHeadDim, 1>(context, args);
  }
}

// Whether the matrix instructions take the call, which they then do.
bool try_mma(OpContext& context, const AttentionArgs& args) {
  const auto fits = [](const ConstMatrixView& view) {
    return rows_aligned(view.data, view.stride, sizeof(bfloat16)) && view.stride <= kMaxTileStride;
  };
  if (!(args.scale > 1e-30f) || !fits(args.query) || !fits(args.key) || !fits(args.value) || !fits(args.output)) {
    return false;
  }
  switch (args.head_dim) {
    case 32:
      start_mma<32>(context, args);
      return true;
    case 64:
      start_mma<64>(context, args);
      return true;
    case 72:
      start_mma<72>(context, args);
      return true;
    case 80:
      start_mma<80>(context, args);
      return true;
    case 96:
      start_mma<96>(context, args);
      return true;
    case 128:
      start_mma<128, 1>(context, args);
      return true;
    default:
      return false;
  }
}

}  // namespace

void attention_cuda(OpContext& context, const AttentionArgs& args) {
  if (args.query.dtype == DType::kBFloat16) {
    if (!try_mma(context, args)) start_general<bfloat16>(context, args);
  } else {
    start_general<float>(context, args);
  }
}

}  // namespace siglip2::cuda
