// The work that the device is asked for, as text: tests compare it between passes that are to ask for the same, which a
// GPU then starts as a whole (cuda/graphs.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

namespace siglip2::simt {

extern bool work_recorded;

// Begins with nothing, or ends.
void record_work(bool on);
// A piece a line, in order: what is done and all that decides it, contents of memory excepted.
std::string list_work();

// What these do nothing for while no work is recorded.
void record_piece(const char* what, std::initializer_list<std::uintptr_t> numbers);
// `arguments`: their bytes, without padding.
void record_launch(const char* name, const void* kernel, std::initializer_list<std::uintptr_t> shape,
                   std::span<const std::span<const std::byte>> arguments);

}  // namespace siglip2::simt
