// The body of cuda/runtime.h on the CUDA runtime.
#include <algorithm>
#include <limits>
#include <string>

#include "cuda/cuda_device.h"
#include "cuda/runtime.h"
#include "tensor/error.h"

namespace siglip2::cuda::runtime {
namespace {

// What a kernel may use without being asked about.
constexpr std::size_t kPlainSharedBytes = std::size_t{48} << 10;

// The context's device, as the calling thread's.
CudaDevice& enter(const OpContext& context) {
  CudaDevice& device = CudaDevice::of(context);
  device.enter();
  return device;
}

[[noreturn]] void throw_out_of_memory(CudaDevice& device, std::size_t requested) {
  std::size_t free = 0;
  std::size_t total = 0;
  device.check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  constexpr std::size_t most = std::numeric_limits<std::int64_t>::max();
  const auto requested_bytes = static_cast<std::int64_t>(std::min(requested, most));
  const auto free_bytes = static_cast<std::int64_t>(free + device.memory().kept_bytes());
  throw Error(kErrorOutOfMemory,
              std::string("the GPU (") + device.properties().name + ") has not enough memory: " +
                  std::to_string(requested_bytes) + " bytes are needed, " + std::to_string(free_bytes) + " are free",
              {{"requestedBytes", requested_bytes}, {"freeBytes", free_bytes}});
}

void allow_shared_memory(CudaDevice& device, const char* name, const void* kernel, std::size_t bytes) {
  std::size_t& limit = device.shared_limits[kernel];
  if (bytes <= limit) return;
  if (bytes > device.properties().sharedMemPerBlockOptin)
    throw Error(kErrorCuda, std::string("kernel ") + name + " needs " + std::to_string(bytes) +
                                " bytes of shared memory; this GPU has " +
                                std::to_string(device.properties().sharedMemPerBlockOptin) + " for a block");
  device.check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
               name);
  limit = bytes;
}

}  // namespace

void* allocate(void* state, std::size_t bytes) {
  auto& device = *static_cast<CudaDevice*>(state);
  device.enter();
  void* const memory = device.memory().allocate(device, bytes);
  if (memory == nullptr) throw_out_of_memory(device, bytes);
  return memory;
}

void release(void* state, void* memory) noexcept {
  if (memory == nullptr) return;
  auto& device = *static_cast<CudaDevice*>(state);
  device.memory().release(device, memory);
}

void copy_to_device(OpContext& context, void* device, const void* host, std::size_t bytes) {
  if (bytes != 0) enter(context).graphs().upload(device, host, bytes);
}

void copy_to_host(OpContext& context, void* host, const void* device, std::size_t bytes) {
  CudaDevice& from = enter(context);
  from.graphs().finish();
  from.staging().to_host(host, device, bytes);
}

void copy_on_device(OpContext& context, void* to, const void* from, std::size_t bytes) {
  CudaDevice& device = enter(context);
  if (bytes == 0) return;
  device.graphs().queue(DeviceCopy{to, from, bytes});
}

void fill_zero(OpContext& context, void* memory, std::size_t bytes) {
  CudaDevice& device = enter(context);
  if (bytes == 0) return;
  device.graphs().queue(ZeroFill{memory, bytes});
}

void stage_to_device(OpContext& context, void* device, const void* host, std::size_t bytes) {
  copy_to_device(context, device, host, bytes);
}

void launch(OpContext& context, const char* name, const void* kernel, std::int64_t blocks, std::int64_t blocks_y,
            int threads, std::size_t shared_bytes, void** arguments, const std::size_t* argument_bytes) {
  CudaDevice& device = enter(context);
  if (shared_bytes > kPlainSharedBytes) allow_shared_memory(device, name, kernel, shared_bytes);
  device.started(name);
  device.graphs().queue(KernelLaunch{name, kernel, blocks, blocks_y, threads, shared_bytes}, arguments, argument_bytes);
}

void begin_pass(void* state) {
  auto& device = *static_cast<CudaDevice*>(state);
  device.enter();
  device.graphs().begin();
}

void end_pass(void* state) {
  auto& device = *static_cast<CudaDevice*>(state);
  device.enter();
  device.graphs().end();
}

void abandon_pass(void* state) noexcept {
  static_cast<CudaDevice*>(state)->graphs().abandon();
}

int multiprocessors(const OpContext& context) {
  return CudaDevice::of(context).properties().multiProcessorCount;
}

std::size_t l2_bytes(const OpContext& context) {
  return static_cast<std::size_t>(CudaDevice::of(context).properties().l2CacheSize);
}

void timer_start(OpContext& context) {
  CudaDevice& device = enter(context);
  device.graphs().finish();
  if (device.timer_start == nullptr) device.check(cudaEventCreate(&device.timer_start), "cudaEventCreate");
  if (device.timer_stop == nullptr) device.check(cudaEventCreate(&device.timer_stop), "cudaEventCreate");
  device.check(cudaEventRecord(device.timer_start, device.stream()), "cudaEventRecord");
}

double timer_stop(OpContext& context) {
  CudaDevice& device = enter(context);
  device.graphs().finish();
  device.check(cudaEventRecord(device.timer_stop, device.stream()), "cudaEventRecord");
  device.check(cudaEventSynchronize(device.timer_stop), "waiting for queued work");
  float milliseconds = 0;
  device.check(cudaEventElapsedTime(&milliseconds, device.timer_start, device.timer_stop), "cudaEventElapsedTime");
  return milliseconds;
}

void flush_l2(OpContext& context) {
  CudaDevice& device = enter(context);
  const std::size_t bytes = 2 * l2_bytes(context);
  if (device.flush_memory == nullptr) device.flush_memory = allocate(&device, bytes);
  device.graphs().queue(ZeroFill{device.flush_memory, bytes});
}

}  // namespace siglip2::cuda::runtime
