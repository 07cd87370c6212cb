// Global memory: which of it a launch may touch, and whether two of its threads may have done what they did.
//
// Blocks of a launch are never ordered, so memory that one block writes no other may touch. Within a block the rules of
// shared memory hold. Only memory that the launch may write is remembered, in pages made when they are first touched.
#include <link.h>

#include <memory>
#include <string>
#include <unordered_map>

#include "simt/device_memory.h"
#include "simt/shadow.h"
#include "tensor/error.h"

namespace siglip2::simt {
namespace {

struct Range {
  std::uintptr_t begin, end;
  std::uintptr_t row_bytes, stride_bytes;  // stride 0: no gaps
  std::uintptr_t row_begin, row_end;       // the row last hit
  bool writable;
  bool remembered;
};

std::vector<Range> ranges;
Range* last_range = nullptr;
// Of the kernel's parameters.
std::uintptr_t parameters_begin = 0, parameters_bytes = 0;

// A 4-byte word: `cell` as in shared memory, for the block `serial`; bytes that it has read and written; and those that
// earlier blocks of the launch have.
struct GlobalCell {
  Cell cell;
  std::uint32_t serial;
  std::uint8_t own_reads, own_writes, other_reads, other_writes;
};

constexpr std::size_t kPageBytes = 1024;
struct Page {
  GlobalCell cells[kPageBytes / 4];
};
constexpr std::size_t kMostPages = (std::size_t{512} << 20) / sizeof(Page);

std::unordered_map<std::uintptr_t, std::unique_ptr<Page>> pages;
// Pages lately used, by the low bits of their number.
struct Recent {
  std::uintptr_t number = ~std::uintptr_t{0};
  Page* page = nullptr;
} recent[256];

// Cells of blocks before this one belong to earlier launches.
std::uint32_t first_serial = 0;

GlobalCell& cell_at(std::uintptr_t address) {
  const std::uintptr_t number = address / kPageBytes;
  Recent& slot = recent[number % std::size(recent)];
  if (slot.number != number) {
    std::unique_ptr<Page>& page = pages[number];
    if (page == nullptr) page = std::make_unique<Page>();
    slot = {number, page.get()};
  }
  return slot.page->cells[address % kPageBytes / 4];
}

void forget_pages() {
  pages.clear();
  for (Recent& slot : recent)
    slot = {};
}

// Read-only parts of this library: a kernel's constants.
struct Constants {
  struct Part {
    std::uintptr_t begin, end;
  };
  std::vector<Part> parts;

  Constants() {
    dl_iterate_phdr(
        [](dl_phdr_info* object, std::size_t, void* data) {
          auto& found = *static_cast<std::vector<Part>*>(data);
          const auto own = reinterpret_cast<std::uintptr_t>(&launch);
          std::vector<Part> readable;
          bool mine = false;
          for (int i = 0; i < object->dlpi_phnum; ++i) {
            const auto& header = object->dlpi_phdr[i];
            if (header.p_type != PT_LOAD) continue;
            const std::uintptr_t begin = object->dlpi_addr + header.p_vaddr, end = begin + header.p_memsz;
            if (own >= begin && own < end) mine = true;
            if ((header.p_flags & PF_W) == 0) readable.push_back({begin, end});
          }
          if (mine) found = readable;
          return mine ? 1 : 0;
        },
        &parts);
  }
  bool contain(std::uintptr_t address, std::size_t bytes) const {
    for (const Part& part : parts)
      if (address >= part.begin && address + bytes <= part.end) return true;
    return false;
  }
};

[[noreturn]] void fail_access(const Thread& thread, std::uintptr_t address, std::size_t bytes, bool write) {
  current = const_cast<Thread*>(&thread);
  const std::string what = std::string(write ? "writes " : "reads ") + std::to_string(bytes) + " bytes ";
  const std::uintptr_t shared = reinterpret_cast<std::uintptr_t>(block.shared);
  if (address + 65536 >= shared && address < shared + kMostSharedBytes + 65536)
    fail(what + "at offset " + std::to_string(static_cast<std::ptrdiff_t>(address - shared)) +
         " of shared memory, which has " + std::to_string(block.shared_bytes) + " bytes");
  // The nearest declared range says most about what went wrong.
  const Range* nearest = nullptr;
  std::uintptr_t distance = ~std::uintptr_t{0};
  for (const Range& range : ranges) {
    const std::uintptr_t gap = address < range.begin  ? range.begin - address
                               : address >= range.end ? address - range.end
                                                      : 0;
    if (gap < distance) {
      distance = gap;
      nearest = &range;
    }
  }
  if (nearest == nullptr) fail(what + "of global memory, of which the launch declares none");
  const std::string range =
      " a range of " + std::to_string(nearest->end - nearest->begin) + " bytes that the launch declares";
  if (address < nearest->begin) fail(what + std::to_string(distance) + " bytes before" + range);
  if (address >= nearest->end) fail(what + std::to_string(distance) + " bytes after" + range);
  if (address + bytes > nearest->end) fail(what + "across the end of" + range);
  if (write && !nearest->writable) fail(what + "of" + range + " as read only");
  const std::uintptr_t offset = address - nearest->begin;
  fail(what + "in the padding of" + range + ": row " + std::to_string(offset / nearest->stride_bytes) + ", byte " +
       std::to_string(offset % nearest->stride_bytes) + " of rows of " + std::to_string(nearest->row_bytes) + " bytes");
}

[[noreturn]] void fail_race(const Thread& thread, std::uintptr_t address, bool write, const std::string& other) {
  current = const_cast<Thread*>(&thread);
  std::string place = "global memory";
  for (const Range& range : ranges) {
    if (address < range.begin || address >= range.end) continue;
    place = "byte " + std::to_string(address - range.begin) + " of a global range of " +
            std::to_string(range.end - range.begin) + " bytes";
    break;
  }
  fail(std::string("race: ") + (write ? "writes " : "reads ") + place + " that " + other);
}

bool within(Range& range, std::uintptr_t address, std::size_t bytes, bool write) {
  if (address < range.begin || address + bytes > range.end || (write && !range.writable)) return false;
  if (range.stride_bytes == 0 || (address >= range.row_begin && address + bytes <= range.row_end)) return true;
  const std::uintptr_t row_begin = address - (address - range.begin) % range.stride_bytes;
  if (address + bytes > row_begin + range.row_bytes) return false;
  range.row_begin = row_begin;
  range.row_end = row_begin + range.row_bytes;
  return true;
}

// Whether the access must be remembered. Fails when no range holds it.
bool check_declared(const Thread& thread, std::uintptr_t address, std::size_t bytes, bool write) {
  if (last_range != nullptr && within(*last_range, address, bytes, write)) return last_range->remembered;
  for (Range& range : ranges) {
    if (!within(range, address, bytes, write)) continue;
    last_range = &range;
    return range.remembered;
  }
  static const Constants constants;
  if (write || !constants.contain(address, bytes)) fail_access(thread, address, bytes, write);
  return false;
}

// Bytes `mask` of one word.
void access_word(const Thread& thread, std::uintptr_t address, std::uint8_t mask, bool write) {
  GlobalCell& global = cell_at(address);
  if (global.serial != block.serial) {
    const bool this_launch = global.serial >= first_serial;
    global.other_reads = this_launch ? global.other_reads | global.own_reads : 0;
    global.other_writes = this_launch ? global.other_writes | global.own_writes : 0;
    global.own_reads = global.own_writes = 0;
    global.serial = block.serial;
    global.cell = {0, 0};
  }
  if ((global.other_writes & mask) != 0) fail_race(thread, address, write, "another block of the launch writes");
  if (write) {
    if ((global.other_reads & mask) != 0) fail_race(thread, address, write, "another block of the launch reads");
    global.own_writes |= mask;
  } else {
    global.own_reads |= mask;
  }
  Conflict conflict = Conflict::kNone;
  if (mask == 15 && global.cell.writer != kSplit) {
    conflict = write ? write_cell(global.cell, thread) : read_cell(global.cell, thread);
  } else {
    Parts& parts = split(global.cell);
    for (std::size_t i = 0; i < parts.size() && conflict == Conflict::kNone; ++i)
      if ((mask >> i & 1) != 0) conflict = write ? write_cell(parts[i], thread) : read_cell(parts[i], thread);
  }
  if (conflict != Conflict::kNone)
    fail_race(thread, address, write,
              describe_thread(conflicting) + (conflict == Conflict::kReadThenWrite ? " reads" : " writes") +
                  ", without a barrier between");
}

}  // namespace

void GlobalMemory::add(const void* data, std::int64_t rows, std::int64_t row_bytes, std::int64_t stride_bytes,
                       bool writable) {
  if (rows <= 0 || row_bytes <= 0) return;
  const auto begin = reinterpret_cast<std::uintptr_t>(data);
  const auto length = static_cast<std::uintptr_t>((rows - 1) * stride_bytes + row_bytes);
  ranges_.push_back({begin, begin + length, static_cast<std::uintptr_t>(row_bytes),
                     static_cast<std::uintptr_t>(stride_bytes), writable});
}

void declare_global(const GlobalMemory& memory, const KernelCall& call) {
  ranges.clear();
  last_range = nullptr;
  first_serial = block.serial + 1;
  if (pages.size() > kMostPages) forget_pages();
  for (const GlobalMemory::Range& range : memory.ranges()) {
    check_device_range(reinterpret_cast<const void*>(range.begin), range.end - range.begin);
    const bool gaps = range.stride_bytes > range.row_bytes && range.end - range.begin > range.row_bytes;
    ranges.push_back(
        {range.begin, range.end, range.row_bytes, gaps ? range.stride_bytes : 0, 0, 0, range.writable, false});
  }
  for (Range& range : ranges)
    for (const Range& other : ranges)
      if (other.writable && range.begin < other.end && other.begin < range.end) range.remembered = true;
  parameters_begin = reinterpret_cast<std::uintptr_t>(call.data);
  parameters_bytes = call.bytes;
}

void global_access(const Thread& thread, std::uintptr_t address, std::size_t bytes, bool write) {
  if (!write && address - parameters_begin < parameters_bytes) return;
  (write ? block.statistics.global_bytes_written : block.statistics.global_bytes_read) += bytes;
  if (!check_declared(thread, address, bytes, write)) return;
  for (const std::uintptr_t end = address + bytes; address < end;) {
    const std::uintptr_t word = address & ~std::uintptr_t{3};
    const std::uintptr_t stop = word + 4 < end ? word + 4 : end;
    access_word(thread, address, static_cast<std::uint8_t>((1u << (stop - address)) - 1) << (address - word), write);
    address = stop;
  }
}

}  // namespace siglip2::simt
