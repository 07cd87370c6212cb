#include "fake_runtime.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
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

struct CUgraph_st {
  std::vector<std::function<void()>> work;
};
struct CUgraphExec_st {
  std::vector<std::function<void()>> work;
};

namespace {

using fake::state;

cudaError_t last = cudaSuccess;
std::map<void*, std::size_t> pinned;
bool capturing = false;  // one stream, on the only thread
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

// What the call of that name was ordered to give.
cudaError_t ordered(const char* name) {
  const auto found = state.failures.find(name);
  if (found == state.failures.end() || found->second.first-- > 0) return cudaSuccess;
  const cudaError_t status = found->second.second;
  state.failures.erase(found);
  return status;
}

// Of calls that CUDA forbids the thread while it is capturing.
std::vector<cudaStream_t> streams;
bool forbidden() {
  for (cudaStream_t stream : streams)
    if (stream->capturing) stream->invalidated = true;
  return capturing;
}

bool is_pinned(const void* from, std::size_t bytes) {
  auto found = pinned.upper_bound(const_cast<void*>(from));
  if (found == pinned.begin()) return false;
  --found;
  return static_cast<const char*>(from) + bytes <= static_cast<const char*>(found->first) + found->second;
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
  streams.push_back(*stream);
  return result(cudaSuccess);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  std::erase(streams, stream);
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  if (forbidden()) return result(cudaErrorStreamCaptureUnsupported);
  return result(stream->work.empty() ? cudaSuccess : cudaErrorNotReady);
}

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  if (forbidden()) return result(cudaErrorStreamCaptureUnsupported);
  ++state.mallocs;
  if (state.used + bytes > state.memory) return result(cudaErrorMemoryAllocation);
  *memory = std::aligned_alloc(512, (bytes + 511) / 512 * 512);
  std::memset(*memory, 0xA5, std::min(bytes, size_t{1} << 20));
  state.used += bytes;
  state.blocks[*memory] = bytes;
  return result(cudaSuccess);
}
cudaError_t cudaFree(void* memory) {
  if (forbidden()) return result(cudaErrorStreamCaptureUnsupported);
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
  if (forbidden()) return result(cudaErrorStreamCaptureUnsupported);
  if (const cudaError_t status = ordered("cudaHostAlloc")) return result(status);
  *memory = std::malloc(bytes);
  pinned[*memory] = bytes;
  state.pinned += bytes;
  return result(cudaSuccess);
}
cudaError_t cudaFreeHost(void* memory) {
  state.pinned -= pinned.at(memory);
  pinned.erase(memory);
  std::free(memory);
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  if (const cudaError_t status = ordered("cudaEventCreate")) return result(status);
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
  if (forbidden()) return result(cudaErrorStreamCaptureUnsupported);
  event->stream = stream;
  event->before = stream->work.size();
  event->recorded = true;
  waiting[stream][event] = true;
  return result(cudaSuccess);
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (forbidden()) return result(cudaErrorStreamCaptureUnsupported);
  while (event->before > 0)
    run_one(event->stream);
  return result(cudaSuccess);
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
  *milliseconds = 1.5f;
  return result(cudaSuccess);
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  if (const cudaError_t status = ordered("cudaMemcpyAsync")) return result(status);
  const void* const host = kind == cudaMemcpyHostToDevice ? from : to;
  if (kind != cudaMemcpyDeviceToDevice && !is_pinned(host, bytes)) return result(cudaErrorInvalidValue);
  stream->queue([=] { std::memcpy(to, from, bytes); });
  return result(cudaSuccess);
}
cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream) {
  if (const cudaError_t status = ordered("cudaMemsetAsync")) return result(status);
  stream->queue([=] { std::memset(memory, value, bytes); });
  return result(cudaSuccess);
}
cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) {
  ++state.function_attributes;
  return result(cudaSuccess);
}
cudaError_t cudaLaunchKernel(const void* kernel, dim3, dim3, void** arguments, size_t, cudaStream_t stream) {
  cudaError_t status = std::exchange(state.next_launch, cudaSuccess);
  if (status == cudaSuccess) status = ordered("cudaLaunchKernel");
  if (status != cudaSuccess) return result(status);
  if (!stream->capturing) ++state.launches;
  const auto found = state.functions.find(kernel);
  if (found == state.functions.end()) {
    stream->queue(**static_cast<fake::Kernel**>(arguments[0]));
    return result(cudaSuccess);
  }
  const fake::Function& function = found->second;
  auto copies = std::make_shared<std::vector<std::vector<std::max_align_t>>>();
  for (std::size_t i = 0; i < function.argument_bytes.size(); ++i) {
    copies->emplace_back(function.argument_bytes[i] / sizeof(std::max_align_t) + 1);
    std::memcpy(copies->back().data(), arguments[i], function.argument_bytes[i]);
  }
  stream->queue([copies, &function] {
    std::vector<void*> addresses;
    for (auto& copy : *copies)
      addresses.push_back(copy.data());
    function.run(addresses.data());
  });
  return result(cudaSuccess);
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (forbidden()) return result(cudaErrorIllegalState);
  if (const cudaError_t status = ordered("cudaStreamBeginCapture")) return result(status);
  ++state.captures;
  stream->capturing = capturing = true;
  stream->invalidated = false;
  stream->captured.clear();
  return result(cudaSuccess);
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  if (!stream->capturing) return result(cudaErrorIllegalState);
  stream->capturing = capturing = false;
  if (const cudaError_t status = ordered("cudaStreamEndCapture")) return result(status);
  if (stream->invalidated) return result(cudaErrorStreamCaptureInvalidated);
  *graph = new CUgraph_st{std::move(stream->captured)};
  ++state.graphs;
  return result(cudaSuccess);
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  if (const cudaError_t status = ordered("cudaGraphInstantiate")) return result(status);
  *exec = new CUgraphExec_st{graph->work};
  ++state.graphs;
  return result(cudaSuccess);
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  --state.graphs;
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  --state.graphs;
  delete exec;
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  if (const cudaError_t status = ordered("cudaGraphLaunch")) return result(status);
  ++state.graph_launches;
  for (const auto& piece : exec->work)
    stream->queue(piece);
  return result(cudaSuccess);
}

}  // extern "C"
