// A CUDA runtime for tests of code that sits on it (native/cuda/): device memory is the host's, queued work runs as
// late as the rules allow, memory is limited, and errors can be ordered.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>
#include <map>
#include <string>

namespace fake {

struct State {
  int devices = 1;
  int capability_major = 9;
  int driver_version = 13000;
  cudaError_t count_error = cudaSuccess;
  std::size_t memory = std::size_t{256} << 20;  // of the device
  std::size_t used = 0;
  int mallocs = 0;
  int frees = 0;
  int function_attributes = 0;
  // What the next launch gives, and whether it is an error that stays.
  cudaError_t next_launch = cudaSuccess;
  // What the device will be found to have done, when queued work has got so far; stays.
  cudaError_t sticky = cudaSuccess;
  std::map<void*, std::size_t> blocks;
};
extern State state;

// A kernel's `arguments` are the address of one pointer to a std::function, which runs in the stream's order.
using Kernel = std::function<void()>;

}  // namespace fake
