// CUDA C++ for kernel files, in whichever of its two builds: nvcc compiles the language itself; the host compiler gets
// the same words from simt/language.h, and the kernels then run on the emulated device.
//
// Kernel files (ops/NAME/NAME_cuda.cu) include this header and those of cuda/prim/, and reach the hardware through
// them alone: SIGLIP2_SIMT is tested nowhere else.
#pragma once

#if defined(SIGLIP2_SIMT)
#include "simt/language.h"
#else
#include <cuda_runtime.h>
#endif
