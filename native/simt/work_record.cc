#include "simt/work_record.h"

#include <cstdio>

namespace siglip2::simt {
namespace {

std::string work;

}  // namespace

bool work_recorded = false;

void record_work(bool on) {
  work_recorded = on;
  if (on) work.clear();
}

std::string list_work() {
  return work;
}

void record_piece(const char* what, std::initializer_list<std::uintptr_t> numbers) {
  if (!work_recorded) return;
  work += what;
  for (const std::uintptr_t number : numbers)
    work += " " + std::to_string(number);
  work += "\n";
}

void record_launch(const char* name, const void* kernel, std::initializer_list<std::uintptr_t> shape,
                   std::span<const std::span<const std::byte>> arguments) {
  if (!work_recorded) return;
  work += name;
  for (const std::uintptr_t number : shape)
    work += " " + std::to_string(number);
  char text[24];
  std::snprintf(text, sizeof text, " %p", kernel);
  work += text;
  for (const std::span<const std::byte> argument : arguments) {
    work += " ";
    for (const std::byte byte : argument) {
      std::snprintf(text, sizeof text, "%02x", static_cast<unsigned>(byte));
      work += text;
    }
  }
  work += "\n";
}

}  // namespace siglip2::simt
