// A stack and the place in it where execution goes on: what a thread of the emulated device is.
#pragma once

#include <cstddef>
#include <cstdint>

namespace siglip2::simt {

class Fiber {
 public:
  // Makes the fiber start at `entry` on `stack` when it is switched to. `entry` must never return.
  void prepare(unsigned char* stack, std::size_t stack_bytes, void (*entry)());
  // Goes on in `to`; returns when something switches back to `from`.
  static void switch_to(Fiber& from, Fiber& to);

 private:
  void* stack_pointer_ = nullptr;
};

}  // namespace siglip2::simt
