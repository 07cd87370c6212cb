// A CUDA runtime for tests of code that sits on it (native/cuda/): device memory is the host's, queued work runs as
// late as the rules allow, memory is limited, and errors can be ordered.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace fake {

// A kernel's `arguments` are the address of one pointer to a std::function, which runs in the stream's order.
using Kernel = std::function<void()>;

// Or it is a host function, and its arguments are copied when it is launched.
struct Function {
  std::vector<std::size_t> argument_bytes;
  std::function<void(void** arguments)> run;
};

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
  std::map<const void*, Function> functions;
  int launches = 0;  // of single kernels, outside of captures
  int captures = 0;
  int graph_launches = 0;
  int graphs = 0;  // that are instantiated and not destroyed
  std::size_t pinned = 0;
  // Calls that will fail: after how many, and with what.
  std::map<std::string, std::pair<int, cudaError_t>> failures;
};
extern State state;

template <std::size_t... I, typename... Parameters>
void call(void (*kernel)(Parameters...), void** arguments, std::index_sequence<I...>) {
  kernel(*static_cast<Parameters*>(arguments[I])...);
}
template <typename... Parameters>
void add_function(void (*kernel)(Parameters...)) {
  state.functions[reinterpret_cast<const void*>(kernel)] = {
      {sizeof(Parameters)...},
      [kernel](void** arguments) { call(kernel, arguments, std::index_sequence_for<Parameters...>()); }};
}

}  // namespace fake
