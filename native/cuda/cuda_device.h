// A device of the CUDA runtime: its one stream, its memory, and whether it still works.
#pragma once

#include <cuda_runtime_api.h>

#include <atomic>
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "cuda/backend.h"
#include "cuda/graphs.h"
#include "cuda/matmul_plans.h"
#include "cuda/staging.h"

namespace siglip2::cuda {

class CudaDevice;

// Device memory that is kept when it is released, because cudaMalloc and cudaFree wait for the device. Blocks are not
// divided: a released one serves a request that fills most of it.
class MemoryPool {
 public:
  // Null when the device has none left even after all kept blocks went back to it. Throws ERR_SIGLIP_CUDA.
  void* allocate(CudaDevice& device, std::size_t bytes);
  void release(CudaDevice& device, void* memory) noexcept;
  std::size_t kept_bytes();

 private:
  void free_kept() noexcept;  // with the mutex held

  std::mutex mutex_;
  std::unordered_map<void*, std::size_t> lent_;
  std::multimap<std::size_t, void*> kept_;
  std::size_t kept_bytes_ = 0;
};

class CudaDevice : public DeviceState {
 public:
  // Throws ERR_SIGLIP_CUDA.
  CudaDevice(int ordinal, int runtime_ordinal);

  static CudaDevice& of(const OpContext& context) { return *static_cast<CudaDevice*>(context.device); }

  // Makes this the calling thread's device. Throws ERR_SIGLIP_CUDA when the device is dead.
  void enter();

  // Throws ERR_SIGLIP_CUDA unless `status` is success. `what`: the kernel or call that it came from. An error that no
  // later call recovers from marks the device as dead.
  void check(cudaError_t status, const char* what) {
    if (status != cudaSuccess) fail(status, what);
  }
  [[noreturn]] void fail(cudaError_t status, const char* what);
  bool dead() const { return dead_.load(std::memory_order_acquire); }
  // The first error of a dead device.
  const std::string& failure() const { return failure_; }

  // The last kernels that were started, for messages: what an error is about shows only when it is read, later.
  void started(const char* kernel) { recent_[recent_count_++ % kRecent] = kernel; }
  // All queued work is known to have ended well.
  void settled() { recent_count_ = 0; }

  cudaStream_t stream() const { return stream_.get(); }
  int runtime_ordinal() const { return runtime_ordinal_; }
  const cudaDeviceProp& properties() const { return properties_; }
  MemoryPool& memory() { return memory_; }
  Staging& staging() { return *staging_; }
  // All work goes to the stream through them; see there.
  Graphs& graphs() { return graphs_; }
  // On the calling thread's device; made on first use.
  MatmulPlans& matmul_plans();

  // Dynamic shared memory that each kernel has been allowed.
  std::unordered_map<const void*, std::size_t> shared_limits;
  // For benchmarks; made on first use.
  cudaEvent_t timer_start = nullptr;
  cudaEvent_t timer_stop = nullptr;
  void* flush_memory = nullptr;

 private:
  static constexpr std::size_t kRecent = 4;

  std::string recent_kernels() const;

  int runtime_ordinal_;
  cudaDeviceProp properties_{};
  std::unique_ptr<CUstream_st, cudaError_t (*)(cudaStream_t)> stream_{nullptr, cudaStreamDestroy};
  MemoryPool memory_;
  std::unique_ptr<Staging> staging_;
  Graphs graphs_{*this};
  std::mutex matmul_mutex_;
  std::unique_ptr<MatmulPlans> matmul_plans_;
  std::atomic<const char*> recent_[kRecent] = {};
  std::atomic<std::size_t> recent_count_{0};
  std::mutex failure_mutex_;
  std::string failure_;
  std::atomic<bool> dead_{false};
};

}  // namespace siglip2::cuda
