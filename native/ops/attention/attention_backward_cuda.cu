// Backward pass of attention: a kernel for the statistics of the queries, then one for all gradients, of two forms.
//
// Floor of the statistics: one read of output and grad_output, 8 bytes written for each query and head.
//
// Plan of the statistics: 8 lanes a query and head, vectors of 16 bytes where rows allow; neighbouring groups take
// neighbouring heads, whose columns are neighbours in memory.
#include "ops/attention/attention.h"

#include <limits>

#include "cuda/dtype_switch.h"
#include "cuda/kernels.h"
#include "ops/attention/attention_backward_general.cuh"

namespace siglip2::cuda {
namespace attention_backward {
namespace {

constexpr int kStatisticsThreads = 256;
constexpr int kLanes = 8;  // of one query and head

template <typename T, int kValues>
__global__ void __launch_bounds__(kStatisticsThreads)
    statistics_kernel(Rows<const T> output, Rows<const T> grad_output, Rows<const float> log_sum_exp,
                      Statistic* statistics, std::int64_t queries, int heads, int head_dim, float log_sum_exp_factor) {
  const std::int64_t group = (std::int64_t{blockIdx.x} * kStatisticsThreads + threadIdx.x) / kLanes;
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const std::int64_t row = group / heads;
  const int head = static_cast<int>(group % heads);
  const bool valid = in_bounds(row < queries);
  float product = 0.0f;
  if (valid) {
    const T* const out = output.data + row * output.stride + std::int64_t{head} * head_dim;
    const T* const gradient = grad_output.data + row * grad_output.stride + std::int64_t{head} * head_dim;
    for (int column = lane * kValues; column < head_dim; column += kLanes * kValues) {
      const auto a = load_vector<kValues>(out + column);
      const auto b = load_vector<kValues>(gradient + column);
#pragma unroll
      for (int i = 0; i < kValues; ++i)
        product = fmaf(to_float(a[i]), to_float(b[i]), product);
    }
  }
  product = warp_sum<kLanes>(product);
  if (valid && lane == 0) {
    const float value = log_sum_exp.data[row * log_sum_exp.stride + head];
    // A query without keys: −∞ as it is would make weights of ∞ − ∞.
    const float nothing = std::numeric_limits<float>::infinity();
    statistics[head * queries + row] = {value == -nothing ? nothing : value * log_sum_exp_factor, product};
  }
}

template <typename T>
const Statistic* form_statistics(OpContext& context, Scratch& scratch, const AttentionBackwardArgs& args,
                                 float log_sum_exp_factor) {
  const std::int64_t count = args.query.rows * args.heads;
  Statistic* const statistics = scratch.allocate<Statistic>(count);
  const bool aligned = args.head_dim % kWidest<T> == 0 &&
                       rows_aligned(args.output.data, args.output.stride, sizeof(T)) &&
                       rows_aligned(args.grad_output.data, args.grad_output.stride, sizeof(T));
  launch(context, "attention_backward_statistics", aligned ? statistics_kernel<T, kWidest<T>> : statistics_kernel<T, 1>,
         {(count * kLanes + kStatisticsThreads - 1) / kStatisticsThreads, kStatisticsThreads},
         {reads(args.output), reads(args.grad_output), reads(args.log_sum_exp), writes(statistics, count)},
         Rows<const T>{args.output.as<T>(), args.output.stride},
         Rows<const T>{args.grad_output.as<T>(), args.grad_output.stride},
         Rows<const float>{args.log_sum_exp.as<float>(), args.log_sum_exp.stride}, statistics, args.query.rows,
         args.heads, args.head_dim, log_sum_exp_factor);
  return statistics;
}

}  // namespace
}  // namespace attention_backward

void attention_backward_cuda(OpContext& context, const AttentionBackwardArgs& args) {
  using namespace attention_backward;
  Scratch scratch(context);
  if (const MmaStart start = mma_start(args)) {
    // This kernel forms its weights as powers of 2.
    start(context, args, form_statistics<bfloat16>(context, scratch, args, kLog2E));
    return;
  }
  with_activation_type(args.query.dtype, [&](auto type) {
    using T = decltype(type);
    const Statistic* const statistics = form_statistics<T>(context, scratch, args, 1.0f);
    if (args.head_dim <= 64) {
      start_general<GeneralTiling<32, 16, 1>, T>(context, args, statistics);
    } else if (args.head_dim <= 128) {
      start_general<GeneralTiling<32, 32, 1>, T>(context, args, statistics);
    } else {
      start_general<GeneralTiling<16, 32, 2>, T>(context, args, statistics);
    }
  });
}

}  // namespace siglip2::cuda
