// A device library: a shared library, opened at run time, that drives devices of one kind. It exports one C function,
// siglip2_device_library, of the type DeviceLibraryFunction.
#pragma once

#include <cstddef>

#include "backend/op_table.h"

namespace siglip2 {

// What inspect() and `devices()` show.
struct DeviceFacts {
  char name[256];            // "NVIDIA H200"
  char architecture[32];     // "sm_90"
  std::size_t memory_bytes;  // in all
  std::size_t free_bytes;    // now
  int multiprocessors;
  int driver_version;  // as the driver numbers it: 13000 is 13.0
  char notice[256];    // one line for inspect(), or empty: cuBLASLt missing, …
};

// `count`, `reason`, `open` and `facts` may be called on any thread; everything else, the table included, on the one
// executor thread of the device concerned.
struct DeviceLibrary {
  const char* kind;  // "cuda" or "simt": the name of device 0; further ones are "cuda:1", …
  // How many devices can be used. When none: `reason` says why.
  int (*count)() noexcept;
  const char* (*reason)() noexcept;
  // The state of a device (OpContext::device), made on first use; throws siglip2::Error.
  void* (*open)(int ordinal);
  void (*facts)(int ordinal, DeviceFacts* facts);
  const OpTable* table;
  // For benchmarks, on the executor's thread: marks a place in the queued work; waits for all of it and gives the
  // milliseconds since that place; queues work that leaves nothing of earlier work in the L2 cache.
  void (*timer_start)(OpContext&);
  double (*timer_stop)(OpContext&);
  void (*flush_l2)(OpContext&);
  // Only the emulated device, for tests: takes a command ("seed 7"), gives an answer that is valid until the next
  // call. Null elsewhere.
  const char* (*control)(const char* command);
};

// Changes with every change to OpTable, DeviceLibrary or argument structs; a library of another version is refused.
inline constexpr int kDeviceLibraryVersion = 9;

// Null when `version` is not the library's.
using DeviceLibraryFunction = const DeviceLibrary* (*)(int version);

}  // namespace siglip2
