#include "simt/fiber.h"

#include <cstring>

// siglip2_simt_switch(void** save, void* load): pushes what a call must preserve, exchanges stack pointers, pops.
#if defined(__x86_64__)
asm(R"(
.text
.globl siglip2_simt_switch
.hidden siglip2_simt_switch
.type siglip2_simt_switch, @function
siglip2_simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size siglip2_simt_switch, .-siglip2_simt_switch
)");
#elif defined(__aarch64__)
asm(R"(
.text
.globl siglip2_simt_switch
.hidden siglip2_simt_switch
.type siglip2_simt_switch, %function
siglip2_simt_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size siglip2_simt_switch, .-siglip2_simt_switch
)");
#else
#error "the emulated device has no fiber switch for this processor"
#endif

extern "C" void siglip2_simt_switch(void** save, void* load);

namespace siglip2::simt {

void Fiber::prepare(unsigned char* stack, std::size_t stack_bytes, void (*entry)()) {
  const auto top = (reinterpret_cast<std::uintptr_t>(stack) + stack_bytes) & ~std::uintptr_t{15};
#if defined(__x86_64__)
  // Six registers, the address to return to, and a word that keeps the alignment a called function expects.
  auto* const frame = reinterpret_cast<void**>(top - 8 * sizeof(void*));
  std::memset(frame, 0, 8 * sizeof(void*));
  frame[6] = reinterpret_cast<void*>(entry);
#else
  auto* const frame = reinterpret_cast<void**>(top - 160);
  std::memset(frame, 0, 160);
  frame[11] = reinterpret_cast<void*>(entry);  // x30, the address to return to
#endif
  stack_pointer_ = frame;
}

void Fiber::switch_to(Fiber& from, Fiber& to) {
  siglip2_simt_switch(&from.stack_pointer_, to.stack_pointer_);
}

}  // namespace siglip2::simt
