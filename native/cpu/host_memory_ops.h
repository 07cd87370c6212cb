// The memory entries of an op table whose device is the host itself.
#pragma once

#include <cstring>

#include "backend/op_table.h"
#include "cpu/memory.h"

namespace siglip2::cpu {

inline void fill_host_memory_ops(OpTable& table) {
  table.allocate = allocate;
  table.release = release;
  const auto copy = [](OpContext&, void* to, const void* from, std::size_t bytes) {
    if (bytes != 0) std::memcpy(to, from, bytes);
  };
  table.copy_to_device = copy;
  table.copy_to_host = copy;
  table.copy_on_device = copy;
  table.fill_zero = [](OpContext&, void* memory, std::size_t bytes) {
    if (bytes != 0) std::memset(memory, 0, bytes);
  };
}

}  // namespace siglip2::cpu
