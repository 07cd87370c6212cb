// Measuring a kernel call: `timing: { repeats, cold }` among its arguments runs it several times, and its result has
// `milliseconds`, a Float64Array.
#pragma once

#include <optional>
#include <vector>

#include "addon/arguments.h"
#include "backend/kernel_timer.h"

namespace siglip2::addon {

struct Timing {
  int repeats = 1;
  bool cold = false;  // caches flushed before every run
};

inline std::optional<Timing> to_timing(const Napi::Value& value) {
  if (value.IsUndefined()) return std::nullopt;
  const Napi::Object object = to_object(value, "timing");
  Timing timing;
  timing.repeats = static_cast<int>(to_integer(object.Get("repeats"), "timing.repeats", 1, 10000));
  timing.cold = to_boolean(object.Get("cold"), "timing.cold");
  return timing;
}

// Milliseconds of every measured run. One run that is not measured comes first.
template <typename Run>
std::vector<double> time_runs(Device& device, OpContext& context, const Timing& timing, Run&& run) {
  // On a GPU several runs in a row are measured together: the host queues them while earlier work is still running, so
  // that its time is not measured.
  const int runs_together = timing.cold || device.table().host_memory ? 1 : 8;
  KernelTimer timer(device, context);
  std::vector<double> milliseconds;
  run();
  for (int repeat = 0; repeat < timing.repeats; ++repeat) {
    if (timing.cold || !device.table().host_memory) timer.flush_caches();
    if (!timing.cold) run();
    timer.start();
    for (int i = 0; i < runs_together; ++i)
      run();
    milliseconds.push_back(timer.stop() / runs_together);
  }
  return milliseconds;
}

inline void set_milliseconds(Napi::Env env, Napi::Object object, const std::vector<double>& milliseconds) {
  if (milliseconds.empty()) return;
  Napi::Float64Array array = Napi::Float64Array::New(env, milliseconds.size());
  for (std::size_t i = 0; i < milliseconds.size(); ++i)
    array[i] = milliseconds[i];
  object.Set("milliseconds", array);
}

}  // namespace siglip2::addon
