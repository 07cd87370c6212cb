// Memory for activations: one block of a device, handed out as a stack.
//
// How much a pass needs is found by running the same code once in planning mode, in which the arena counts and the
// operations do not run (see nn/pass.h). The block then grows once, before the work starts, and is kept.
#pragma once

#include <cstddef>

#include "backend/op_table.h"

namespace siglip2 {

class Arena {
 public:
  // `state`: the device's, OpContext::device.
  Arena(const OpTable& table, void* state) : table_(table), state_(state) {}
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // Starts counting from zero; allocations return addresses that must not be used.
  void start_planning();
  // Makes the block large enough for what was counted, and starts handing it out from its beginning. Throws
  // ERR_SIGLIP_OUT_OF_MEMORY, and then the arena is empty but usable.
  void start_running();

  // 64-byte aligned memory, valid until the enclosing Scope ends or the next start.
  void* allocate(std::size_t bytes);

  // Gives back, at its end, everything that was allocated during its life.
  class Scope {
   public:
    explicit Scope(Arena& arena) : arena_(arena), start_(arena.used_) {}
    ~Scope() { arena_.used_ = start_; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Arena& arena_;
    std::size_t start_;
  };

  std::size_t capacity() const { return capacity_; }
  // The most bytes that the last plan needed at once.
  std::size_t planned() const { return peak_; }

 private:
  const OpTable& table_;
  void* state_;
  char* block_ = nullptr;
  std::size_t capacity_ = 0;
  std::size_t used_ = 0;
  std::size_t peak_ = 0;
  bool planning_ = false;
};

}  // namespace siglip2
