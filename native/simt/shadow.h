// What the engine remembers of memory, and the rules by which accesses of a block's threads may follow one another: an
// access must be ordered after every earlier conflicting one by barriers (happens-before), whichever thread ran first.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "simt/block.h"

namespace siglip2::simt {

// The state of one 4-byte word, or of one byte of a word that was accessed in parts.
//   writer: 0 (never written), the stamp of the last write, kInFlight, or kSplit with the parts' index in `reader`.
//   reader: 0, the stamp of the last read when it is ordered after all earlier ones since the write, or kSet | index of
//           the readers.
struct Cell {
  std::uint32_t writer;
  std::uint32_t reader;
};
inline constexpr std::uint32_t kSet = 1u << 31;
inline constexpr std::uint32_t kInFlight = 0xFFFFFFFF;
inline constexpr std::uint32_t kSplit = 0xFFFFFFFE;

// Entries with a free list; all are given back at once.
template <typename Entry>
class Pool {
 public:
  std::uint32_t take() {
    if (!free_.empty()) {
      const std::uint32_t index = free_.back();
      free_.pop_back();
      return index;
    }
    if (used_ == entries_.size()) entries_.emplace_back();
    return static_cast<std::uint32_t>(used_++);
  }
  void give_back(std::uint32_t index) { free_.push_back(index); }
  void clear() {
    used_ = 0;
    free_.clear();
  }
  Entry& operator[](std::uint32_t index) { return entries_[index]; }

 private:
  std::vector<Entry> entries_;
  std::vector<std::uint32_t> free_;
  std::size_t used_ = 0;
};

// A warp's reads of a cell: the stamp of the last one, and kSet when other lanes have read it too in a way that the
// warp's lanes have not all behind them.
using Readers = std::array<std::uint32_t, kMostWarps>;
using Parts = std::array<Cell, 4>;

// Both are valid within one block.
extern Pool<Readers> readers_pool;
extern Pool<Parts> parts_pool;

enum class Conflict { kNone, kUninitialised, kInFlight, kWriteThenRead, kWriteThenWrite, kReadThenWrite };

// The stamp of the access that the last conflict was with.
extern Stamp conflicting;

inline bool ordered(const Thread& thread, Stamp before) {
  const std::uint32_t index = before >> kEpochBits & (kMostThreads - 1);
  if (index == static_cast<std::uint32_t>(thread.index)) return true;
  return (before & kEpochMask) <= thread.warp->clock[index / kWarp];
}

Conflict read_slowly(Cell& cell, const Thread& thread);
Conflict write_slowly(Cell& cell, const Thread& thread);

// Whole cells that are not split. Reads of memory never written are no conflict here.
inline Conflict read_cell(Cell& cell, const Thread& thread) {
  const Stamp mine = stamp(thread);
  if (cell.writer >= kSplit || !ordered(thread, cell.writer) || (cell.reader != 0 && cell.reader != mine))
    return read_slowly(cell, thread);
  cell.reader = mine;
  return Conflict::kNone;
}

inline Conflict write_cell(Cell& cell, const Thread& thread) {
  const Stamp mine = stamp(thread);
  if (cell.writer >= kSplit || !ordered(thread, cell.writer) || (cell.reader != 0 && cell.reader != mine))
    return write_slowly(cell, thread);
  cell = {mine, 0};
  return Conflict::kNone;
}

// Makes the parts of a word known one by one.
Parts& split(Cell& word);

}  // namespace siglip2::simt
