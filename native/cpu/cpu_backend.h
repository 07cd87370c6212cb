// The op tables of the host: the CPU kernels, and the double-precision oracles as a device of their own.
#pragma once

#include "backend/op_table.h"

namespace siglip2::cpu {

// Kernels of the chosen instruction set; chosen once. Throws what chosen_instruction_set() throws.
const OpTable& cpu_table();

// Every ops/NAME/NAME_ref.cc. Slow and plain: what tests compare the other devices with.
const OpTable& reference_table();

}  // namespace siglip2::cpu
