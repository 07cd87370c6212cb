// From the element type of a view to the type a kernel is compiled for.
#pragma once

#include "cuda/prim/bfloat16.h"
#include "tensor/dtype.h"

namespace siglip2::cuda {

// Calls body(T{}) with T = float or bfloat16, which the dispatching function has checked.
template <typename Body>
void with_activation_type(DType dtype, Body&& body) {
  if (dtype == DType::kBFloat16) {
    body(bfloat16{});
  } else {
    body(float{});
  }
}

}  // namespace siglip2::cuda
