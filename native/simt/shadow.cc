#include "simt/shadow.h"

namespace siglip2::simt {

Pool<Readers> readers_pool;
Pool<Parts> parts_pool;
Stamp conflicting = 0;

namespace {

int warp_of(Stamp stamp) {
  return static_cast<int>((stamp & ~kSet) >> (kEpochBits + 5));
}

void add_reader(std::uint32_t& entry, const Thread& thread, Stamp mine) {
  if (entry == mine || entry == 0) {
    entry = mine;
    return;
  }
  const Warp& warp = *thread.warp;
  const bool behind = (entry & kEpochMask) <= warp.clock[warp.index];
  const bool same_lane = (entry & ~kEpochMask) == (mine & ~kEpochMask);
  entry = behind || same_lane ? mine : mine | kSet;
}

Conflict conflict_with(Stamp other, Conflict conflict) {
  conflicting = other & ~kSet;
  return conflict;
}

}  // namespace

Conflict read_slowly(Cell& cell, const Thread& thread) {
  const Stamp mine = stamp(thread);
  if (cell.writer == kInFlight) return Conflict::kInFlight;
  if (!ordered(thread, cell.writer)) return conflict_with(cell.writer, Conflict::kWriteThenRead);
  if ((cell.reader & kSet) != 0) {
    add_reader(readers_pool[cell.reader & ~kSet][static_cast<std::size_t>(thread.warp->index)], thread, mine);
  } else if (cell.reader == 0 || ordered(thread, cell.reader)) {
    cell.reader = mine;
  } else {
    const std::uint32_t index = readers_pool.take();
    Readers& readers = readers_pool[index];
    readers.fill(0);
    readers[static_cast<std::size_t>(warp_of(cell.reader))] = cell.reader;
    add_reader(readers[static_cast<std::size_t>(thread.warp->index)], thread, mine);
    cell.reader = kSet | index;
  }
  return Conflict::kNone;
}

Conflict write_slowly(Cell& cell, const Thread& thread) {
  if (cell.writer == kInFlight) return Conflict::kInFlight;
  if (!ordered(thread, cell.writer)) return conflict_with(cell.writer, Conflict::kWriteThenWrite);
  if ((cell.reader & kSet) != 0) {
    const Readers& readers = readers_pool[cell.reader & ~kSet];
    for (int i = 0; i < block.warp_count; ++i) {
      const std::uint32_t reader = readers[static_cast<std::size_t>(i)];
      if (reader == 0) continue;
      const bool behind = (reader & kEpochMask) <= thread.warp->clock[i];
      if (!behind && ((reader & kSet) != 0 || !ordered(thread, reader)))
        return conflict_with(reader, Conflict::kReadThenWrite);
    }
    readers_pool.give_back(cell.reader & ~kSet);
  } else if (cell.reader != 0 && !ordered(thread, cell.reader)) {
    return conflict_with(cell.reader, Conflict::kReadThenWrite);
  }
  cell = {stamp(thread), 0};
  return Conflict::kNone;
}

Parts& split(Cell& word) {
  if (word.writer == kSplit) return parts_pool[word.reader];
  const std::uint32_t index = parts_pool.take();
  Parts& parts = parts_pool[index];
  for (Cell& part : parts) {
    part = word;
    if ((word.reader & kSet) == 0) continue;
    const std::uint32_t readers = readers_pool.take();
    readers_pool[readers] = readers_pool[word.reader & ~kSet];
    part.reader = kSet | readers;
  }
  if ((word.reader & kSet) != 0) readers_pool.give_back(word.reader & ~kSet);
  word = {kSplit, index};
  return parts;
}

}  // namespace siglip2::simt
