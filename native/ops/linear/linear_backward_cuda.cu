#include "cuda/kernels.h"
#include "ops/linear/linear.h"
#include "tensor/error.h"

namespace siglip2::cuda {

void linear_backward_cuda(OpContext&, const LinearBackwardArgs&) {
  throw Error(kErrorUnsupported, "linear_backward is not written yet");
}

}  // namespace siglip2::cuda
