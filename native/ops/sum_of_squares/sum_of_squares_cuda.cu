#include "cuda/kernels.h"
#include "ops/sum_of_squares/sum_of_squares.h"
#include "tensor/error.h"

namespace siglip2::cuda {

void sum_of_squares_cuda(OpContext&, const SumOfSquaresArgs&) {
  throw Error(kErrorUnsupported, "sum_of_squares is not written yet");
}

}  // namespace siglip2::cuda
