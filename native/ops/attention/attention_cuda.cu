#include "cuda/kernels.h"
#include "ops/attention/attention.h"
#include "tensor/error.h"

namespace siglip2::cuda {

void attention_cuda(OpContext&, const AttentionArgs&) {
  throw Error(kErrorUnsupported, "attention is not written yet");
}

}  // namespace siglip2::cuda
