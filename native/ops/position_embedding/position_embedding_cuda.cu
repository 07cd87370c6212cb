#include "cuda/kernels.h"
#include "ops/position_embedding/position_embedding.h"
#include "tensor/error.h"

namespace siglip2::cuda {

void position_embedding_cuda(OpContext&, const PositionEmbeddingArgs&) {
  throw Error(kErrorUnsupported, "position_embedding is not written yet");
}
void position_embedding_backward_cuda(OpContext&, const PositionEmbeddingBackwardArgs&) {
  throw Error(kErrorUnsupported, "position_embedding_backward is not written yet");
}

}  // namespace siglip2::cuda
