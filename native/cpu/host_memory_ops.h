// The facts and memory entries of an op table whose device is the host itself.
#pragma once

#include <cstring>

#include "backend/op_table.h"
#include "cpu/memory.h"

namespace siglip2::cpu {

inline void fill_host_memory_ops(OpTable& table) {
  table.activation_types = 1u << static_cast<int>(DType::kFloat32);
  table.weight_types = 1u << static_cast<int>(DType::kBFloat16) | 1u << static_cast<int>(DType::kInt8);
  table.host_memory = true;
  table.fuses_gelu = true;
  table.rounded_operands = true;
  table.allocate = [](void*, std::size_t bytes) { return allocate(bytes); };
  table.release = [](void*, void* memory) noexcept { release(memory); };
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
