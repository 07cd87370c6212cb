#include "backend/arena.h"

#include <cstdint>
#include <string>

#include "tensor/error.h"

namespace siglip2 {
namespace {

constexpr std::size_t kAlignment = 64;

}  // namespace

Arena::~Arena() {
  table_.release(state_, block_);
}

void Arena::start_planning() {
  planning_ = true;
  used_ = 0;
  peak_ = 0;
}

void Arena::start_running() {
  planning_ = false;
  used_ = 0;
  if (peak_ <= capacity_) return;
  // The old block goes first, so that the two are never held at once.
  table_.release(state_, block_);
  block_ = nullptr;
  capacity_ = 0;
  block_ = static_cast<char*>(table_.allocate(state_, peak_));
  capacity_ = peak_;
}

void* Arena::allocate(std::size_t bytes) {
  const std::size_t start = used_;
  const std::size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (rounded < bytes || start + rounded < start)
    throw Error(kErrorOutOfMemory, "the activations of this batch are larger than the address space");
  used_ = start + rounded;
  if (planning_) {
    if (used_ > peak_) peak_ = used_;
    // Never read or written; distinct from null, which means "absent" in operation arguments.
    return reinterpret_cast<void*>(static_cast<std::uintptr_t>(start + kAlignment));
  }
  if (used_ > capacity_)
    throw Error(kErrorOutOfMemory, "the plan of this pass was " + std::to_string(capacity_) + " bytes, but it needs " +
                                       std::to_string(used_));
  return block_ + start;
}

}  // namespace siglip2
