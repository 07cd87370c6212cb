// Which head dimensions the tensor-core kernel of attention's backward pass takes, and how. The floor and the plan are
// in attention_backward_mma.cuh.
#include "cuda/kernels.h"
#include "ops/attention/attention_backward_mma.cuh"

namespace siglip2::cuda::attention_backward {

// With 255 registers a thread two blocks of 128 threads fit a multiprocessor: 32 resident rows a warp where their
// gradients fit, else 16, and as many streamed rows at a time as then fit. Tiles of 64 streamed rows where two blocks
// of them fit the 164 KiB of shared memory of sm_80, else 32; one block always fits 99 KiB.
MmaStart mma_start(const AttentionBackwardArgs& args) {
  for (const ConstMatrixView& view :
       {args.query, args.key, args.value, args.grad_output, ConstMatrixView(args.grad_query),
        ConstMatrixView(args.grad_key), ConstMatrixView(args.grad_value)}) {
    if (view.dtype != DType::kBFloat16 || !rows_aligned(view.data, view.stride, sizeof(bfloat16))) return nullptr;
  }
  switch (args.head_dim) {
    case 32:
      return start<Plan<32, 2, 64, 32, true, 32, true>>;
    case 64:
      return start<Plan<64, 2, 64, 32, false, 16, true>>;
    case 72:
      return start<Plan<72, 2, 64, 16, false, 16, true>>;
    case 80:
      return start<Plan<80, 2, 32, 16, false, 16, true>>;
    case 96:
      return start<Plan<96, 1, 32, 32, true, 32, true>>;
    case 128:
      return start<Plan<128, 1, 32, 32, false, 32, true>>;
    default:
      return nullptr;
  }
}

}  // namespace siglip2::cuda::attention_backward
