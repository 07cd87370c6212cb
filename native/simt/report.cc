// What a launch that breaks a rule says.
#include <string>

#include "simt/block.h"
#include "simt/sites.h"

namespace siglip2::simt {
namespace {

std::string of_block() {
  return std::to_string(block.coordinates.x) +
         (block.grid.y > 1 ? ", " + std::to_string(block.coordinates.y) : std::string());
}

// Leaves the running thread for good. What its stack holds is abandoned with it.
[[noreturn]] void abandon(const std::string& message) {
  block.failure = std::string("kernel ") + block.kernel_name + ", block " + of_block() + ": " + message + " [seed " +
                  std::to_string(block.seed) + ", launch " + std::to_string(block.launch) + "]";
  Thread& thread = *current;
  Fiber::switch_to(thread.fiber, block.host);
  __builtin_unreachable();
}

}  // namespace

std::string describe(Site site) {
  return std::string(short_path(site.file)) + ":" + std::to_string(site.line);
}

std::string describe_thread(Stamp stamp) {
  const auto index = stamp >> kEpochBits & (kMostThreads - 1);
  const Thread& thread = block.threads[index];
  std::string text = "thread " + std::to_string(index);
  if (thread.site.line != 0) text += " (now at " + describe(thread.site) + ")";
  return text;
}

void fail(const std::string& message) {
  const Thread& thread = *current;
  const std::string where =
      thread.site.line == 0 ? "before its first primitive" : "last primitive at " + describe(thread.site);
  abandon("thread " + std::to_string(thread.index) + ": " + message + " (" + where + ")");
}

void fail_deadlock() {
  std::string text = "deadlock:";
  for (int i = 0; i < block.thread_count;) {
    const Thread& first = block.threads[static_cast<std::size_t>(i)];
    int end = i + 1;
    for (; end < block.thread_count; ++end) {
      const Thread& other = block.threads[static_cast<std::size_t>(end)];
      if (other.done != first.done || other.operation != first.operation || other.site.line != first.site.line ||
          other.site.file != first.site.file)
        break;
    }
    text += (i == 0 ? " threads " : "; threads ") + std::to_string(i) + " to " + std::to_string(end - 1);
    if (first.done) {
      text += " have ended";
    } else {
      text += std::string(" wait in ") + first.operation + " at " + describe(first.site);
    }
    i = end;
  }
  abandon(text);
}

}  // namespace siglip2::simt
