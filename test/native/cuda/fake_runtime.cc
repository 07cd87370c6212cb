#include "fake_runtime.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "fake_stream.h"

namespace fake {
State state;
}  // namespace fake

struct CUevent_st {
  cudaStream_t stream = nullptr;
  std::size_t before = 0;  // work of the stream that was queued earlier and is not done
  bool recorded = false;
  bool timing = true;
};

namespace {

using fake::state;

cudaError_t last = cudaSuccess;
std::map<cudaStream_t, std::map<CUevent_st*, bool>> waiting;

cudaError_t result(cudaError_t status) {
  if (state.sticky != cudaSuccess) status = state.sticky;
  if (status != cudaSuccess && status != cudaErrorNotReady) last = status;
  return status;
}

void run_one(cudaStream_t stream) {
  const std::function<void()> work = std::move(stream->work.front());
  stream->work.pop_front();
  for (auto& [event, unused] : waiting[stream])
    if (event->before > 0) --event->before;
  if (state.sticky == cudaSuccess) work();
}

void queue(cudaStream_t stream, std::function<void()> work) {
  stream->work.push_back(std::move(work));
}

}  // namespace

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  *count = state.devices;
  return result(state.count_error);
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = state.driver_version;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrComputeCapabilityMajor ? state.capability_major : 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int) {
  return result(cudaSuccess);
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {};
  std::strcpy(properties->name, "fake GPU");
  properties->major = state.capability_major;
  properties->totalGlobalMem = state.memory;
  properties->multiProcessorCount = 4;
  properties->l2CacheSize = 1 << 16;
  properties->sharedMemPerBlockOptin = 227 << 10;
  return result(cudaSuccess);
}
cudaError_t cudaGetLastError() {
  const cudaError_t error = state.sticky != cudaSuccess ? state.sticky : last;
  last = cudaSuccess;
  return error;
}
const char* cudaGetErrorString(cudaError_t) {
  return "words of the runtime";
}
const char* cudaGetErrorName(cudaError_t error) {
  return error == cudaErrorIllegalAddress ? "cudaErrorIllegalAddress" : "cudaErrorOther";
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new CUstream_st;
  return result(cudaSuccess);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return result(stream->work.empty() ? cudaSuccess : cudaErrorNotReady);
}

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  ++state.mallocs;
  if (state.used + bytes > state.memory) return result(cudaErrorMemoryAllocation);
  *memory = std::aligned_alloc(512, (bytes + 511) / 512 * 512);
  std::memset(*memory, 0xA5, std::min(bytes, size_t{1} << 20));
  state.used += bytes;
  state.blocks[*memory] = bytes;
  return result(cudaSuccess);
}
cudaError_t cudaFree(void* memory) {
  ++state.frees;
  // As on hardware: waits for the device first.
  for (auto& [stream, unused] : waiting)
    while (!stream->work.empty())
      run_one(stream);
  if (state.blocks.count(memory) == 0) return result(cudaErrorInvalidValue);
  state.used -= state.blocks[memory];
  state.blocks.erase(memory);
  std::free(memory);
  return result(cudaSuccess);
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *free = state.memory - state.used;
  *total = state.memory;
  return result(cudaSuccess);
}
cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned) {
  *memory = std::malloc(bytes);
  return result(cudaSuccess);
}
cudaError_t cudaFreeHost(void* memory) {
  std::free(memory);
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  return result(cudaSuccess);
}
cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, 0);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  for (auto& [stream, events] : waiting)
    events.erase(event);
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  event->stream = stream;
  event->before = stream->work.size();
  event->recorded = true;
  waiting[stream][event] = true;
  return result(cudaSuccess);
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  while (event->before > 0)
    run_one(event->stream);
  return result(cudaSuccess);
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
  *milliseconds = 1.5f;
  return result(cudaSuccess);
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  queue(stream, [=] { std::memcpy(to, from, bytes); });
  return result(cudaSuccess);
}
cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream) {
  queue(stream, [=] { std::memset(memory, value, bytes); });
  return result(cudaSuccess);
}
cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) {
  ++state.function_attributes;
  return result(cudaSuccess);
}
cudaError_t cudaLaunchKernel(const void*, dim3, dim3, void** arguments, size_t, cudaStream_t stream) {
  const cudaError_t status = std::exchange(state.next_launch, cudaSuccess);
  if (status != cudaSuccess) return result(status);
  queue(stream, **static_cast<fake::Kernel**>(arguments[0]));
  return result(cudaSuccess);
}

}  // extern "C"
