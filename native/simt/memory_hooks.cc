// The functions that -fsanitize=thread calls before every load and store of a kernel. The names are the compiler's.
#include <cstddef>

#include "simt/block.h"

namespace siglip2::simt {
namespace {

template <bool kWrite>
inline void access(void* pointer, std::size_t bytes) {
  Thread* const thread = current;
  if (thread == nullptr) return;  // the host's part of a kernel file
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  if (address - thread->stack < kStackBytes) return;
  const std::uintptr_t offset = address - reinterpret_cast<std::uintptr_t>(block.shared);
  if (offset < block.shared_bytes && bytes <= block.shared_bytes - offset) {
    if (kWrite) {
      shared_write(*thread, offset, bytes);
    } else {
      shared_read(*thread, offset, bytes);
    }
    return;
  }
  global_access(*thread, address, bytes, kWrite);
}

[[gnu::noinline]] void fail_misaligned(std::size_t bytes) {
  fail("an address is not aligned to the " + std::to_string(bytes) + " bytes of its type");
}

template <bool kWrite, std::size_t kBytes>
inline void aligned_access(void* pointer) {
  if (reinterpret_cast<std::uintptr_t>(pointer) % kBytes != 0 && current != nullptr) fail_misaligned(kBytes);
  access<kWrite>(pointer, kBytes);
}

}  // namespace
}  // namespace siglip2::simt

#define SIGLIP2_HOOK extern "C" __attribute__((visibility("hidden")))
#define SIGLIP2_ACCESS_HOOKS(bytes)                                \
  SIGLIP2_HOOK void __tsan_read##bytes(void* address) {            \
    siglip2::simt::aligned_access<false, bytes>(address);          \
  }                                                                \
  SIGLIP2_HOOK void __tsan_write##bytes(void* address) {           \
    siglip2::simt::aligned_access<true, bytes>(address);           \
  }                                                                \
  SIGLIP2_HOOK void __tsan_unaligned_read##bytes(void* address) {  \
    siglip2::simt::access<false>(address, bytes);                  \
  }                                                                \
  SIGLIP2_HOOK void __tsan_unaligned_write##bytes(void* address) { \
    siglip2::simt::access<true>(address, bytes);                   \
  }
SIGLIP2_ACCESS_HOOKS(1)
SIGLIP2_ACCESS_HOOKS(2)
SIGLIP2_ACCESS_HOOKS(4)
SIGLIP2_ACCESS_HOOKS(8)
SIGLIP2_ACCESS_HOOKS(16)
SIGLIP2_HOOK void __tsan_read_range(void* address, std::size_t bytes) {
  siglip2::simt::access<false>(address, bytes);
}
SIGLIP2_HOOK void __tsan_write_range(void* address, std::size_t bytes) {
  siglip2::simt::access<true>(address, bytes);
}
SIGLIP2_HOOK void __tsan_init() {}
SIGLIP2_HOOK void __tsan_func_entry(void*) {}
SIGLIP2_HOOK void __tsan_func_exit(void*) {}
SIGLIP2_HOOK void __tsan_vptr_update(void**, void*) {}
SIGLIP2_HOOK void __tsan_vptr_read(void**) {}
