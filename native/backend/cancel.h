// A flag that asks running work to stop. Work looks at it between operations.
#pragma once

#include <atomic>

#include "tensor/error.h"

namespace siglip2 {

class CancelToken {
 public:
  void cancel() { cancelled_.store(true, std::memory_order_relaxed); }
  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }
  // Throws ERR_SIGLIP_ABORTED when cancelled.
  void check() const {
    if (cancelled()) throw Error(kErrorAborted, "the operation was aborted");
  }

 private:
  std::atomic<bool> cancelled_{false};
};

}  // namespace siglip2
