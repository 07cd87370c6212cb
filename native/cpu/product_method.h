// How a build of the CPU kernels multiplies bfloat16 numbers and 8-bit integers; cpu/cpu_backend.cc chooses.
#pragma once

#include <cstdint>

namespace siglip2::cpu {

enum class ProductMethod : std::uint8_t {
  kConversion,          // widened first: every machine
  kDot,                 // vdpbf16ps and vpdpbusd: AVX512-BF16, AVX512-VNNI, AVX-VNNI
  kMatrixUnit,          // tdpbf16ps and tdpbssd: AMX
  kEmulatedMatrixUnit,  // all as for AMX but these instructions: for tests
};

}  // namespace siglip2::cpu
