#include "cuda/kernels.h"
#include "ops/gelu/gelu.h"
#include "tensor/error.h"

namespace siglip2::cuda {

void gelu_cuda(OpContext&, const GeluArgs&) {
  throw Error(kErrorUnsupported, "gelu is not written yet");
}
void gelu_backward_cuda(OpContext&, const GeluBackwardArgs&) {
  throw Error(kErrorUnsupported, "gelu_backward is not written yet");
}

}  // namespace siglip2::cuda
