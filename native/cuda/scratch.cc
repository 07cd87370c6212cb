#include "cuda/scratch.h"

#include "cuda/backend.h"
#include "cuda/runtime.h"

namespace siglip2::cuda {
namespace {

constexpr std::size_t kAlignment = 256;

DeviceState& state_of(const OpContext& context) {
  return *static_cast<DeviceState*>(context.device);
}

}  // namespace

Scratch::Scratch(OpContext& context) : context_(context), start_(state_of(context).scratch_used) {}

Scratch::~Scratch() {
  DeviceState& state = state_of(context_);
  state.scratch_used = start_;
  if (start_ != 0) return;
  for (void* const memory : state.outgrown_scratch)
    runtime::release(context_.device, memory);
  state.outgrown_scratch.clear();
}

void* Scratch::allocate_bytes(std::size_t bytes) {
  DeviceState& state = state_of(context_);
  const std::size_t start = state.scratch_used;
  const std::size_t end = start + (bytes + kAlignment - 1) / kAlignment * kAlignment;
  state.scratch_used = end;
  if (context_.planning) {
    if (end > state.scratch_peak) state.scratch_peak = end;
    return reinterpret_cast<void*>(start + kAlignment);
  }
  if (end > state.scratch_capacity) {
    // Only outside of passes. What was handed out before stays where it is until the operation ends.
    unsigned char* const larger = static_cast<unsigned char*>(runtime::allocate(context_.device, 2 * end));
    state.outgrown_scratch.push_back(state.scratch);
    state.scratch = larger;
    state.scratch_capacity = 2 * end;
  }
  return state.scratch + start;
}

void Scratch::upload_bytes(void* device, const void* host, std::size_t bytes) {
  if (!context_.planning) runtime::stage_to_device(context_, device, host, bytes);
}

void Scratch::download_bytes(void* host, const void* device, std::size_t bytes) {
  if (!context_.planning) runtime::copy_to_host(context_, host, device, bytes);
}

}  // namespace siglip2::cuda
