// The functions that -fsanitize=thread calls before every load and store of a kernel. The names are the compiler's.
#include <cstddef>

#define SIGLIP2_HOOK extern "C" __attribute__((visibility("hidden")))
#define SIGLIP2_ACCESS_HOOKS(bytes)                         \
  SIGLIP2_HOOK void __tsan_read##bytes(void*) {}            \
  SIGLIP2_HOOK void __tsan_write##bytes(void*) {}           \
  SIGLIP2_HOOK void __tsan_unaligned_read##bytes(void*) {}  \
  SIGLIP2_HOOK void __tsan_unaligned_write##bytes(void*) {}
SIGLIP2_ACCESS_HOOKS(1)
SIGLIP2_ACCESS_HOOKS(2)
SIGLIP2_ACCESS_HOOKS(4)
SIGLIP2_ACCESS_HOOKS(8)
SIGLIP2_ACCESS_HOOKS(16)
SIGLIP2_HOOK void __tsan_read_range(void*, std::size_t) {}
SIGLIP2_HOOK void __tsan_write_range(void*, std::size_t) {}
SIGLIP2_HOOK void __tsan_init() {}
SIGLIP2_HOOK void __tsan_func_entry(void*) {}
SIGLIP2_HOOK void __tsan_func_exit(void*) {}
SIGLIP2_HOOK void __tsan_vptr_update(void**, void*) {}
SIGLIP2_HOOK void __tsan_vptr_read(void**) {}
