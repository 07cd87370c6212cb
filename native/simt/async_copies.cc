// cp.async: a copy lands at some time between its issue and the wait that covers it, by the launch's seed as late as it
// may or at a primitive before. Until the wait nobody may look.
#include <cstring>
#include <string>

#include "simt/block.h"
#include "simt/sites.h"

namespace siglip2::simt {
namespace {

void land(const Thread& thread, AsyncCopy& copy) {
  if (copy.landed) return;
  copy.landed = true;
  unsigned char* const target = block.shared + copy.shared_offset;
  if (copy.source == nullptr) {
    std::memset(target, 0, copy.bytes);
    return;
  }
  global_access(thread, reinterpret_cast<std::uintptr_t>(copy.source), copy.bytes, false);
  std::memcpy(target, copy.source, copy.bytes);
}

}  // namespace

void reset_copies(Thread& thread) {
  thread.copies.clear();
  thread.group = 0;
}

void maybe_land_copies(Thread& thread) {
  if (block.copies_land_late) return;
  const std::uint64_t random = block.random.next();
  if (random % 4 == 0) land(thread, thread.copies[(random >> 8) % thread.copies.size()]);
}

void end_copies(Thread& thread) {
  if (thread.copies.empty()) return;
  fail("the thread ends with " + std::to_string(thread.copies.size()) + " asynchronous copies it has not waited for");
}

void async_copy(void* shared, const void* source, int bytes, bool valid, Site site) {
  Thread& me = *current;
  const auto size = static_cast<std::size_t>(bytes);
  check_alignment(shared, size, site);
  check_alignment(source, size, site);
  const std::size_t offset = shared_offset(shared, size);
  shared_begin_copy(me, offset, size);
  std::memset(shared, 0xFF, size);
  if (valid) global_access(me, reinterpret_cast<std::uintptr_t>(source), size, false);
  me.copies.push_back({static_cast<std::uint32_t>(offset), static_cast<std::uint32_t>(bytes), valid ? source : nullptr,
                       me.group, false});
  ++block.statistics.async_copies;
  maybe_land_copies(me);
}

void async_copy_commit(Site site) {
  current->site = site;
  if (dropped(site, SiteKind::kAsyncCopyCommit)) return;
  ++current->group;
}

void async_copy_wait(int pending, Site site) {
  Thread& me = *current;
  me.site = site;
  if (dropped(site, SiteKind::kAsyncCopyWait)) return;
  std::size_t done = 0;
  for (AsyncCopy& copy : me.copies) {
    if (copy.group + static_cast<std::uint64_t>(pending) >= me.group) break;
    land(me, copy);
    shared_end_copy(me, copy.shared_offset, copy.bytes);
    ++done;
  }
  me.copies.erase(me.copies.begin(), me.copies.begin() + static_cast<std::ptrdiff_t>(done));
}

}  // namespace siglip2::simt
