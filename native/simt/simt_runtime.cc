// The runtime (cuda/runtime.h) of the emulated device. All work is done when a function returns.
#include <chrono>
#include <cstdlib>
#include <cstring>

#include "cuda/cublaslt.h"
#include "cuda/runtime.h"
#include "simt/device_memory.h"
#include "simt/work_record.h"
#include "tensor/convert.h"

namespace siglip2::cuda::runtime {
namespace {

void record(const char* what, const void* to, std::size_t bytes, const void* from = nullptr) {
  simt::record_piece(what, {reinterpret_cast<std::uintptr_t>(to), bytes, reinterpret_cast<std::uintptr_t>(from)});
}

}  // namespace

void* allocate(void*, std::size_t bytes) {
  return simt::allocate_device_memory(bytes);
}
void release(void*, void* memory) noexcept {
  simt::release_device_memory(memory);
}

void copy_to_device(OpContext&, void* device, const void* host, std::size_t bytes) {
  if (bytes == 0) return;
  simt::check_device_range(device, bytes);
  record("upload", device, bytes);
  const simt::DeviceMemoryAccess access;
  std::memcpy(device, host, bytes);
}
void copy_to_host(OpContext&, void* host, const void* device, std::size_t bytes) {
  if (bytes == 0) return;
  simt::check_device_range(device, bytes);
  record("download", device, bytes);
  const simt::DeviceMemoryAccess access;
  std::memcpy(host, device, bytes);
}
void copy_on_device(OpContext&, void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return;
  simt::check_device_range(to, bytes);
  simt::check_device_range(from, bytes);
  record("copy", to, bytes, from);
  const simt::DeviceMemoryAccess access;
  std::memcpy(to, from, bytes);
}
void fill_zero(OpContext&, void* device, std::size_t bytes) {
  if (bytes == 0) return;
  simt::check_device_range(device, bytes);
  record("fill", device, bytes);
  const simt::DeviceMemoryAccess access;
  std::memset(device, 0, bytes);
}
void stage_to_device(OpContext& context, void* device, const void* host, std::size_t bytes) {
  copy_to_device(context, device, host, bytes);
}

// Nothing is gained by starting work as a whole.
void begin_pass(void*) {
  simt::record_piece("begin", {});
}
void end_pass(void*) {
  simt::record_piece("end", {});
}
void abandon_pass(void*) noexcept {}

int multiprocessors(const OpContext&) {
  return 4;
}
std::size_t l2_bytes(const OpContext&) {
  return std::size_t{1} << 20;
}

// There is no other clock than the host's, and no cache.
namespace {
std::chrono::steady_clock::time_point timer_began;
}  // namespace
void timer_start(OpContext&) {
  timer_began = std::chrono::steady_clock::now();
}
double timer_stop(OpContext&) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - timer_began).count();
}
void flush_l2(OpContext&) {}

}  // namespace siglip2::cuda::runtime

namespace siglip2::cuda {

namespace {

double value_at(const ConstMatrixView& view, std::int64_t row, std::int64_t column) {
  const std::int64_t index = row * view.stride + column;
  if (view.dtype == DType::kFloat32) return view.as<float>()[index];
  return bfloat16_to_float(view.as<std::uint16_t>()[index]);
}

// Products without bias and GELU, into float32.
void multiply_plainly(const MatmulArgs& args) {
  const std::int64_t depth = args.a_transposed ? args.a.rows : args.a.columns;
  for (std::int64_t row = 0; row < args.d.rows; ++row) {
    for (std::int64_t column = 0; column < args.d.columns; ++column) {
      double sum = 0;
      for (std::int64_t k = 0; k < depth; ++k)
        sum += (args.a_transposed ? value_at(args.a, k, row) : value_at(args.a, row, k)) *
               (args.b_transposed ? value_at(args.b, k, column) : value_at(args.b, column, k));
      sum *= args.factor;
      if (args.c.data != nullptr) sum += value_at(args.c, row, column);
      args.d.as<float>()[row * args.d.stride + column] = static_cast<float>(sum);
    }
  }
}

}  // namespace

// SIGLIP2_CUBLASLT=emulated, for tests of operations that leave products to cuBLASLt: those without bias and GELU, into
// float32, are there.
bool matmul_available(OpContext&) {
  const char* const wanted = std::getenv("SIGLIP2_CUBLASLT");
  return wanted != nullptr && std::strcmp(wanted, "emulated") == 0;
}

bool matmul(OpContext& context, const MatmulArgs& args) {
  if (!matmul_available(context) || context.planning) return false;
  if (args.bias != nullptr || args.gelu || args.d.dtype != DType::kFloat32) return false;
  const simt::DeviceMemoryAccess access;
  multiply_plainly(args);
  return true;
}

}  // namespace siglip2::cuda
