#include "cuda/kernels.h"
#include "ops/linear/linear.h"
#include "tensor/error.h"

namespace siglip2::cuda {

std::size_t packed_weight_bytes_cuda(std::int64_t, std::int64_t, DType) {
  return 0;
}
void pack_weight_cuda(OpContext&, const PackWeightArgs&) {
  throw Error(kErrorUnsupported, "pack_weight is not written yet");
}
void linear_cuda(OpContext&, const LinearArgs&) {
  throw Error(kErrorUnsupported, "linear is not written yet");
}
void linear_backward_cuda(OpContext&, const LinearBackwardArgs&) {
  throw Error(kErrorUnsupported, "linear_backward is not written yet");
}

}  // namespace siglip2::cuda
