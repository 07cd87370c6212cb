// What the arithmetic of this machine can reach: the instruction that the CPU's matrix products are made of, on
// registers alone, in a loop of sums that do not depend on each other. Nothing bounds it but the instruction's own rate
// and the clock of the moment, which depends on the data: they are random, never zeros.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace siglip2::cpu {

struct ArithmeticRoof {
  const char* instruction;  // such as "vfmadd231ps, 512 bits"
  double operations;        // done by all threads: a multiplication and an addition are two
};

// Runs `turns` turns of the loop on each of `threads` threads. `type` is that of a product's weights: kFloat32,
// kBFloat16 or kInt8; the instruction is what products with such weights use in the chosen instruction set. Throws
// ERR_SIGLIP_UNSUPPORTED for other types, and for int8 without an instruction set that has products of integers.
ArithmeticRoof run_arithmetic_roof(DType type, std::int64_t turns, int threads);

}  // namespace siglip2::cpu
