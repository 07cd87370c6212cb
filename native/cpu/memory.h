// Host memory for tensors.
#pragma once

#include <cstddef>

namespace siglip2::cpu {

// Memory aligned to 64 bytes (large blocks to 2 MiB, backed by huge pages where the system has them). Throws
// ERR_SIGLIP_OUT_OF_MEMORY with `requestedBytes` and `freeBytes` when the system does not have that much free, before
// touching any of it.
void* allocate(std::size_t bytes);
void release(void* memory) noexcept;

// Memory that grows to what it was last asked for, without what was in it, and is kept until it ends.
class Scratch {
 public:
  Scratch() = default;
  ~Scratch() { release(memory_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // Throws as `allocate` does, and then holds nothing.
  void* get(std::size_t bytes);

 private:
  void* memory_ = nullptr;
  std::size_t bytes_ = 0;
};

// Memory of the calling thread, for what the tasks of an operation leave for what follows them: valid until the thread
// asks again, or ends. Throws as `allocate` does.
void* thread_scratch(std::size_t bytes);

// Throws ERR_SIGLIP_OUT_OF_MEMORY, as `allocate` does, when that many bytes are not free. Small amounts are not looked
// at.
void require_memory(std::size_t bytes);

// Bytes that could be allocated now without swapping, within the limits of the process's control group.
std::size_t available_memory();

}  // namespace siglip2::cpu
