// Commands of tests to the emulated device (DeviceLibrary::control).
#pragma once

namespace siglip2::simt {

//   seed N                  what schedules, landing times and jitter derive from; restarts the count of launches
//   schedule NAME           round-robin, reverse, ahead or random for every launch; or mixed, the default
//   sites on | off | list   keeps the places where kernels synchronise or check bounds
//   drop FILE:LINE KIND     leaves one of them out (in_bounds: is true); drop none ends that
//   work on | off | list     keeps what the device is asked for: launches, copies, fills, ends of passes; a piece a
//   line memory-limit BYTES      of the device's memory statistics              counts since the process began, "name
//   value" a line selftest NAME | list
//
// Answers are text, empty when there is nothing to say, valid until the next call. Throws ERR_SIGLIP_CUDA for what is
// no command.
const char* control(const char* command);

}  // namespace siglip2::simt
