#include "backend/kernel_timer.h"

#include <cstring>

#include "backend/device_library.h"

namespace siglip2 {
namespace {

// More than the last level of cache of any processor that this is likely to run on.
constexpr std::size_t kHostFlushBytes = std::size_t{256} << 20;

}  // namespace

KernelTimer::KernelTimer(Device& device, OpContext& context) : context_(context), library_(device.library()) {}

void KernelTimer::flush_caches() {
  if (library_ != nullptr) {
    library_->flush_l2(context_);
    return;
  }
  cache_filler_.resize(kHostFlushBytes);
  std::memset(cache_filler_.data(), static_cast<int>(cache_filler_[0]) + 1, cache_filler_.size());
}

void KernelTimer::start() {
  if (library_ != nullptr) {
    library_->timer_start(context_);
  } else {
    began_ = std::chrono::steady_clock::now();
  }
}

double KernelTimer::stop() {
  if (library_ != nullptr) return library_->timer_stop(context_);
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - began_).count();
}

}  // namespace siglip2
