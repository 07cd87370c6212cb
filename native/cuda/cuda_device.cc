#include "cuda/cuda_device.h"

#include <algorithm>

#include "tensor/error.h"

namespace siglip2::cuda {
namespace {

constexpr std::size_t kSmallUnit = 512;
constexpr std::size_t kLargeUnit = std::size_t{2} << 20;  // a page of the device
// Released blocks beyond this part of the device's memory go back to it at once.
constexpr std::size_t kMostKept = 8;

std::size_t rounded(std::size_t bytes) {
  const std::size_t unit = bytes < kLargeUnit ? kSmallUnit : kLargeUnit;
  return std::max<std::size_t>(1, (bytes + unit - 1) / unit) * unit;
}

// The largest kept block that may serve a request of that many bytes.
std::size_t most_for(std::size_t bytes) {
  return bytes < kLargeUnit ? 2 * bytes : bytes + bytes / 8;
}

}  // namespace

void* MemoryPool::allocate(CudaDevice& device, std::size_t bytes) {
  const std::size_t wanted = rounded(bytes);
  if (wanted < bytes) return nullptr;
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = kept_.lower_bound(wanted);
  if (found != kept_.end() && found->first <= most_for(wanted)) {
    const auto [size, memory] = *found;
    lent_.emplace(memory, size);
    kept_.erase(found);
    kept_bytes_ -= size;
    return memory;
  }
  void* memory = nullptr;
  cudaError_t status = cudaMalloc(&memory, wanted);
  if (status == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    // Graphs lie in the device's memory, too.
    device.graphs().forget();
    free_kept();
    status = cudaMalloc(&memory, wanted);
  }
  if (status == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    return nullptr;
  }
  device.check(status, "cudaMalloc");
  lent_.emplace(memory, wanted);
  return memory;
}

void MemoryPool::release(CudaDevice& device, void* memory) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = lent_.find(memory);
  if (found == lent_.end()) return;
  const std::size_t size = found->second;
  lent_.erase(found);
  if (kept_bytes_ + size <= device.properties().totalGlobalMem / kMostKept) {
    kept_.emplace(size, memory);
    kept_bytes_ += size;
    return;
  }
  device.graphs().forget();
  // An error is of a dead device, whose memory goes with the process, or the next call meets it again.
  if (cudaFree(memory) != cudaSuccess) (void)cudaGetLastError();
}

void MemoryPool::free_kept() noexcept {
  for (const auto& [size, memory] : kept_)
    if (cudaFree(memory) != cudaSuccess) (void)cudaGetLastError();
  kept_.clear();
  kept_bytes_ = 0;
}

std::size_t MemoryPool::kept_bytes() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return kept_bytes_;
}

CudaDevice::CudaDevice(int ordinal, int runtime_ordinal) : DeviceState(ordinal), runtime_ordinal_(runtime_ordinal) {
  enter();
  check(cudaGetDeviceProperties(&properties_, runtime_ordinal), "cudaGetDeviceProperties");
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  stream_.reset(stream);
  staging_ = std::make_unique<Staging>(*this);
}

void CudaDevice::enter() {
  if (dead())
    throw Error(kErrorCuda,
                "the GPU cannot be used any more since an error; restart the process. The error was: " + failure_);
  thread_local int current = -1;
  if (current == runtime_ordinal_) return;
  check(cudaSetDevice(runtime_ordinal_), "cudaSetDevice");
  current = runtime_ordinal_;
}

MatmulPlans& CudaDevice::matmul_plans() {
  const std::lock_guard<std::mutex> lock(matmul_mutex_);
  if (matmul_plans_ == nullptr) matmul_plans_ = std::make_unique<MatmulPlans>(*this);
  return *matmul_plans_;
}

std::string CudaDevice::recent_kernels() const {
  const std::size_t end = recent_count_;
  std::string names;
  for (std::size_t i = end - std::min(end, kRecent); i < end; ++i)
    names += (names.empty() ? std::string() : ", ") + recent_[i % kRecent].load();
  return names;
}

void CudaDevice::fail(cudaError_t status, const char* what) {
  (void)cudaGetLastError();
  // Kernels and libraries are loaded on first use, into memory of the device.
  const char* const code = status == cudaErrorMemoryAllocation ? kErrorOutOfMemory : kErrorCuda;
  std::string message = std::string(what) + ": " + cudaGetErrorString(status) + " (" + cudaGetErrorName(status) + ")";
  if (status == cudaErrorNoKernelImageForDevice || status == cudaErrorUnsupportedPtxVersion)
    message += "; this build of the CUDA library has no code for this card: npm run build:cuda -- --arch native";
  // An error that stays makes every call fail, also this one, which asks for nothing.
  const cudaError_t now = stream_ == nullptr ? cudaSuccess : cudaStreamQuery(stream());
  if (now != cudaSuccess && now != cudaErrorNotReady) {
    const std::string kernels = recent_kernels();
    if (!kernels.empty()) message += "; the last kernels started were " + kernels;
    message += "; to find the one that failed, set CUDA_LAUNCH_BLOCKING=1";
    const std::lock_guard<std::mutex> lock(failure_mutex_);
    if (!dead()) {
      failure_ = message;
      dead_.store(true, std::memory_order_release);
    }
    message += ". The GPU cannot be used any more by this process; restart it";
  }
  throw Error(code, message);
}

}  // namespace siglip2::cuda
