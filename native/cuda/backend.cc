#include "cuda/backend.h"

#include "backend/device_library.h"
#include "cuda/kernels.h"
#include "cuda/runtime.h"
#include "tensor/dtype.h"

namespace siglip2::cuda {

OpTable make_table(const char* name) {
  OpTable table{};
  table.name = name;
  table.activation_types = 1u << static_cast<int>(DType::kFloat32) | 1u << static_cast<int>(DType::kBFloat16);
  table.host_memory = false;
  table.allocate = runtime::allocate;
  table.release = runtime::release;
  table.copy_to_device = runtime::copy_to_device;
  table.copy_to_host = runtime::copy_to_host;
  table.copy_on_device = runtime::copy_on_device;
  table.fill_zero = runtime::fill_zero;
  table.start_planning = [](void* device) {
    auto& state = *static_cast<DeviceState*>(device);
    state.scratch_used = 0;
    state.scratch_peak = 0;
  };
  table.start_running = [](void* device) {
    auto& state = *static_cast<DeviceState*>(device);
    state.scratch_used = 0;
    if (state.scratch_peak <= state.scratch_capacity) return;
    runtime::release(device, state.scratch);
    state.scratch = nullptr;
    state.scratch_capacity = 0;
    state.scratch = static_cast<unsigned char*>(runtime::allocate(device, state.scratch_peak));
    state.scratch_capacity = state.scratch_peak;
  };
  table.planned_bytes = [](void* device) { return static_cast<DeviceState*>(device)->scratch_peak; };
  table.begin_pass = runtime::begin_pass;
  table.end_pass = runtime::end_pass;
  table.abandon_pass = runtime::abandon_pass;
  fill_kernels(table);
  return table;
}

}  // namespace siglip2::cuda
