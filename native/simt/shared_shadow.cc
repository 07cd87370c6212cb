// Shared memory: what was written, what is being copied into, and who may follow whom.
#include <cstring>
#include <string>

#include "simt/shadow.h"

namespace siglip2::simt {
namespace {

Cell words[(kMostSharedBytes + 16) / 4];

[[noreturn]] void fail_shared(const Thread& thread, Conflict conflict, std::size_t offset, const char* access) {
  current = const_cast<Thread*>(&thread);
  const std::string place = "byte " + std::to_string(offset) + " of shared memory";
  const std::string other = describe_thread(conflicting);
  switch (conflict) {
    case Conflict::kUninitialised:
      fail("reads uninitialised " + place);
    case Conflict::kInFlight:
      fail(std::string(access) + " " + place + ", into which an asynchronous copy is under way");
    case Conflict::kWriteThenRead:
      fail("race: reads " + place + " that " + other + " wrote, without a barrier between");
    case Conflict::kWriteThenWrite:
      fail("race: writes " + place + " that " + other + " wrote, without a barrier between");
    default:
      fail("race: writes " + place + " that " + other + " read, without a barrier between");
  }
}

Conflict read_known(Cell& cell, const Thread& thread) {
  return cell.writer == 0 ? Conflict::kUninitialised : read_cell(cell, thread);
}

void read_parts(const Thread& thread, std::size_t offset, std::size_t end) {
  Cell& word = words[offset / 4];
  // A second read of a word by the same thread changes nothing.
  if (word.reader == stamp(thread) && word.writer < kSplit) return;
  if (word.writer == kInFlight) fail_shared(thread, Conflict::kInFlight, offset, "reads");
  Parts& parts = split(word);
  for (std::size_t i = offset; i < end; ++i)
    if (const Conflict conflict = read_known(parts[i % 4], thread); conflict != Conflict::kNone)
      fail_shared(thread, conflict, i, "reads");
}

void write_parts(const Thread& thread, std::size_t offset, std::size_t end, const char* access) {
  Cell& word = words[offset / 4];
  if (word.writer == kInFlight) fail_shared(thread, Conflict::kInFlight, offset, access);
  Parts& parts = split(word);
  for (std::size_t i = offset; i < end; ++i)
    if (const Conflict conflict = write_cell(parts[i % 4], thread); conflict != Conflict::kNone)
      fail_shared(thread, conflict, i, access);
}

void write_whole(const Thread& thread, std::size_t offset, const char* access) {
  Cell& word = words[offset / 4];
  if (word.writer == kSplit) {
    const std::uint32_t index = word.reader;
    write_parts(thread, offset, offset + 4, access);
    parts_pool.give_back(index);
    word = {stamp(thread), 0};
  } else if (const Conflict conflict = write_cell(word, thread); conflict != Conflict::kNone) {
    fail_shared(thread, conflict, offset, access);
  }
}

void write(const Thread& thread, std::size_t offset, std::size_t bytes, const char* access) {
  block.statistics.shared_bytes_written += bytes;
  for (const std::size_t end = offset + bytes; offset < end;) {
    const std::size_t next = offset / 4 * 4 + 4;
    if (offset % 4 == 0 && next <= end) {
      write_whole(thread, offset, access);
    } else {
      write_parts(thread, offset, next < end ? next : end, access);
    }
    offset = next;
  }
}

}  // namespace

void reset_shared_shadow() {
  std::memset(words, 0, (block.shared_bytes + 3) / 4 * sizeof(Cell));
  readers_pool.clear();
  parts_pool.clear();
}

void shared_read(const Thread& thread, std::size_t offset, std::size_t bytes) {
  block.statistics.shared_bytes_read += bytes;
  for (const std::size_t end = offset + bytes; offset < end;) {
    const std::size_t next = offset / 4 * 4 + 4;
    Cell& word = words[offset / 4];
    if (offset % 4 != 0 || next > end || word.writer == kSplit) {
      read_parts(thread, offset, next < end ? next : end);
    } else if (const Conflict conflict = read_known(word, thread); conflict != Conflict::kNone) {
      fail_shared(thread, conflict, offset, "reads");
    }
    offset = next;
  }
}

void shared_write(const Thread& thread, std::size_t offset, std::size_t bytes) {
  write(thread, offset, bytes, "writes");
}

void shared_begin_copy(const Thread& thread, std::size_t offset, std::size_t bytes) {
  write(thread, offset, bytes, "starts a copy to");
  for (std::size_t i = 0; i < bytes; i += 4)
    words[(offset + i) / 4] = {kInFlight, 0};
}

void shared_end_copy(const Thread& thread, std::size_t offset, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; i += 4)
    words[(offset + i) / 4] = {stamp(thread), 0};
}

std::size_t shared_offset(const void* address, std::size_t bytes) {
  const auto offset = reinterpret_cast<std::uintptr_t>(address) - reinterpret_cast<std::uintptr_t>(block.shared);
  if (offset >= block.shared_bytes || bytes > block.shared_bytes - offset)
    fail("an address that must lie in shared memory does not, or reaches beyond its " +
         std::to_string(block.shared_bytes) + " bytes");
  return offset;
}

}  // namespace siglip2::simt
