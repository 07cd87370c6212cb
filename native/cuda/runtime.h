// What the backend needs of a GPU's runtime: memory, copies, a stream. Two bodies: cuda_runtime.cc on the CUDA runtime,
// simt/simt_runtime.cc on the emulated device. Everything above is the same code for both.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/op_table.h"

namespace siglip2::cuda::runtime {

// Memory of the context's device; throws ERR_SIGLIP_OUT_OF_MEMORY with requested and free bytes. Freed memory may be
// handed out again at once: all work of a device is in the order of its one stream.
void* allocate(void* device, std::size_t bytes);
void release(void* device, void* memory) noexcept;

// In order with the stream's work. Copies to and from the host complete before they return.
void copy_to_device(OpContext& context, void* device, const void* host, std::size_t bytes);
void copy_to_host(OpContext& context, void* host, const void* device, std::size_t bytes);
void copy_on_device(OpContext& context, void* to, const void* from, std::size_t bytes);
void fill_zero(OpContext& context, void* device, std::size_t bytes);

// Queues the copy of host memory that may be changed or freed as soon as this returns, through pinned staging memory.
void stage_to_device(OpContext& context, void* device, const void* host, std::size_t bytes);

// Starts a kernel; `arguments` are the addresses of its parameters, ended by null, and `argument_bytes` their sizes.
// Throws ERR_SIGLIP_CUDA.
void launch(OpContext& context, const char* name, const void* kernel, std::int64_t blocks, std::int64_t blocks_y,
            int threads, std::size_t shared_bytes, void** arguments, const std::size_t* argument_bytes);

// See OpTable.
void begin_pass(void* device);
void end_pass(void* device);
void abandon_pass(void* device) noexcept;

// Streaming multiprocessors of the device, for grids that fill it; and bytes of its L2 cache.
int multiprocessors(const OpContext& context);
std::size_t l2_bytes(const OpContext& context);

// What DeviceLibrary offers to benchmarks.
void timer_start(OpContext& context);
double timer_stop(OpContext& context);
void flush_l2(OpContext& context);

}  // namespace siglip2::cuda::runtime
