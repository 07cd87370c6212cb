#include "cuda/kernels.h"
#include "ops/map_pool/map_pool.h"
#include "tensor/error.h"

namespace siglip2::cuda {

void map_pool_cuda(OpContext&, const MapPoolArgs&) {
  throw Error(kErrorUnsupported, "map_pool is not written yet");
}
void map_pool_backward_cuda(OpContext&, const MapPoolBackwardArgs&) {
  throw Error(kErrorUnsupported, "map_pool_backward is not written yet");
}
void probe_keys_cuda(OpContext&, const ProbeKeysArgs&) {
  throw Error(kErrorUnsupported, "probe_keys is not written yet");
}
void probe_keys_backward_cuda(OpContext&, const ProbeKeysBackwardArgs&) {
  throw Error(kErrorUnsupported, "probe_keys_backward is not written yet");
}

}  // namespace siglip2::cuda
