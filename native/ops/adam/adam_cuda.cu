#include "cuda/kernels.h"
#include "ops/adam/adam.h"
#include "tensor/error.h"

namespace siglip2::cuda {

void adam_cuda(OpContext&, const AdamArgs&) {
  throw Error(kErrorUnsupported, "adam is not written yet");
}

}  // namespace siglip2::cuda
