// What a device of a CUDA-like library is, apart from its runtime: its scratch memory, and whether it still works.
#pragma once

#include <cstddef>
#include <vector>

#include "backend/op_table.h"

namespace siglip2::cuda {

struct DeviceState {
  explicit DeviceState(int device_ordinal) : ordinal(device_ordinal) {}

  int ordinal;
  // Scratch memory, a stack; see cuda/scratch.h. Only touched on the executor's thread.
  unsigned char* scratch = nullptr;
  std::size_t scratch_capacity = 0;
  std::size_t scratch_used = 0;
  std::size_t scratch_peak = 0;  // of the current plan
  // What it grew out of while an operation held parts of it.
  std::vector<void*> outgrown_scratch;
};

// The table of every library of this kind, over its runtime.
OpTable make_table(const char* name);

}  // namespace siglip2::cuda
