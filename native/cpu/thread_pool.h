// The threads that CPU kernels run on: one pool a process, shared by every model, so that several models never start
// more threads than there are cores.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace siglip2::cpu {

// Cores that this process may run on (its affinity mask, not the machine's size).
int available_cores();

using RangeFunction = void (*)(void* state, std::int64_t index, int worker);

// Calls function(state, index, worker) for every index in [0, count), on at most `threads` threads including the
// caller's, and returns when all are done. Indices are handed out in order, one at a time; `worker` is from 0 to
// threads − 1 and distinct for threads that run at the same time. The function must not call parallel_for. If it
// throws, no further indices are handed out and the first exception is thrown to the caller. Calls from different
// threads take turns.
void parallel_for(std::int64_t count, int threads, RangeFunction function, void* state);

// The same for a callable object: body(index, worker).
template <typename Body>
void parallel_for(std::int64_t count, int threads, Body&& body) {
  using Plain = std::remove_reference_t<Body>;
  parallel_for(
      count, threads, [](void* state, std::int64_t index, int worker) { (*static_cast<Plain*>(state))(index, worker); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

// Scratch memory of one worker, aligned to 64 bytes, valid until its next call or the end of the parallel_for; only
// for use inside one. It only ever grows, so that a kernel allocates nothing once it has run at its largest size.
// Throws ERR_SIGLIP_OUT_OF_MEMORY.
void* worker_scratch(int worker, std::size_t bytes);

}  // namespace siglip2::cpu
