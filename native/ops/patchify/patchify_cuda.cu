#include "cuda/kernels.h"
#include "ops/patchify/patchify.h"
#include "tensor/error.h"

namespace siglip2::cuda {

void patchify_images_cuda(OpContext&, const PatchifyImagesArgs&) {
  throw Error(kErrorUnsupported, "patchify_images is not written yet");
}
void patchify_pixels_cuda(OpContext&, const PatchifyPixelsArgs&) {
  throw Error(kErrorUnsupported, "patchify_pixels is not written yet");
}

}  // namespace siglip2::cuda
