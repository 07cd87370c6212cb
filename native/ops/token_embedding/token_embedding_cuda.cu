#include "cuda/kernels.h"
#include "ops/token_embedding/token_embedding.h"
#include "tensor/error.h"

namespace siglip2::cuda {

void token_embedding_cuda(OpContext&, const TokenEmbeddingArgs&) {
  throw Error(kErrorUnsupported, "token_embedding is not written yet");
}
void token_embedding_backward_cuda(OpContext&, const TokenEmbeddingBackwardArgs&) {
  throw Error(kErrorUnsupported, "token_embedding_backward is not written yet");
}

}  // namespace siglip2::cuda
