// Measures single runs of an operation with the clock of its device: events on a GPU, the host's clock elsewhere.
#pragma once

#include <chrono>
#include <vector>

#include "backend/device.h"

namespace siglip2 {

struct DeviceLibrary;

// Only for use on the device's executor thread.
class KernelTimer {
 public:
  KernelTimer(Device& device, OpContext& context);

  // Leaves nothing of earlier work in the device's caches. On a GPU this is queued and takes longer than queueing the
  // work that follows, so that what is measured then does not wait for the host.
  void flush_caches();
  void start();
  // Milliseconds of the work queued since `start`; waits for it.
  double stop();

 private:
  OpContext& context_;
  const DeviceLibrary* library_;  // null: the host's clock
  std::chrono::steady_clock::time_point began_;
  std::vector<char> cache_filler_;
};

}  // namespace siglip2
