// Operations of a warp: shuffles, ballots, matrix instructions. None of them orders memory accesses but warp_barrier.
#include "simt/collectives.h"

#include <cstring>
#include <string>

#include "simt/sites.h"

namespace siglip2::simt {
namespace {

constexpr char kWarpBarrier[] = "warp_barrier";
constexpr char kShuffle[] = "shuffle";
constexpr char kBallot[] = "ballot";
constexpr char kLoadMatrices[] = "load_matrices";
constexpr char kMultiply[] = "multiply";

float widen(std::uint32_t bits) {
  bits <<= 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// A row of an accumulator, which fits two registers of the plainest vector unit.
typedef float Row __attribute__((vector_size(32)));

struct MultiplyIo {
  float* accumulator;
  const std::uint32_t* a;
  const std::uint32_t* b;
};

// Products are exact in float32; their sum in float32, in order, joins the accumulator at the end, as the hardware's
// does.
template <int kDepth>
void multiply_fragments(const Warp& warp) {
  float left[16][kDepth];
  Row right[kDepth];
  for (int lane = 0; lane < kWarp; ++lane) {
    const MultiplyIo& mine = *static_cast<const MultiplyIo*>(warp.io[lane]);
    const int group = lane / 4, pair = 2 * (lane % 4);
    for (int part = 0; part < kDepth / 8; ++part) {
      const std::uint32_t upper = mine.a[2 * part], lower = mine.a[2 * part + 1], b = mine.b[part];
      const int column = 8 * part + pair;
      left[group][column] = widen(upper & 0xFFFF);
      left[group][column + 1] = widen(upper >> 16);
      left[group + 8][column] = widen(lower & 0xFFFF);
      left[group + 8][column + 1] = widen(lower >> 16);
      right[column][group] = widen(b & 0xFFFF);
      right[column + 1][group] = widen(b >> 16);
    }
  }
  for (int row = 0; row < 16; ++row) {
    Row sum = left[row][0] * right[0];
    for (int k = 1; k < kDepth; ++k)
      sum += left[row][k] * right[k];
    for (int t = 0; t < 4; ++t) {
      float* const d = static_cast<const MultiplyIo*>(warp.io[row % 8 * 4 + t])->accumulator + 2 * (row / 8);
      d[0] += sum[2 * t];
      d[1] += sum[2 * t + 1];
    }
  }
}

}  // namespace

void fail_divergent(const char* operation, Site site) {
  const Warp& warp = *current->warp;
  fail(std::string("the warp is divergent: the thread came to ") + operation + " at " + describe(site) +
       ", other lanes wait in " + warp.operation + " at " + describe(warp.site));
}

void fail_ended_lanes(const char* operation) {
  fail(std::string(operation) + ": lanes of the warp have already ended");
}

void warp_barrier(Site site) {
  if (dropped(site, SiteKind::kWarpBarrier)) return;
  meet(kWarpBarrier, nullptr, site, [](Warp& warp) {
    warp.clock[warp.index] = warp.epoch;
    advance(warp);
    return true;
  });
}

void shuffle(const void* value, void* result, std::size_t bytes, int source, Site site) {
  struct Io {
    std::uint64_t value;
    int source;
  } io{0, source};
  std::memcpy(&io.value, value, bytes == 8 ? 8 : 4);
  meet(kShuffle, &io, site, [](Warp& warp) {
    std::uint64_t values[kWarp];
    for (int lane = 0; lane < kWarp; ++lane)
      values[lane] = static_cast<Io*>(warp.io[lane])->value;
    for (int lane = 0; lane < kWarp; ++lane) {
      Io& mine = *static_cast<Io*>(warp.io[lane]);
      mine.value = values[mine.source & (kWarp - 1)];
    }
    return true;
  });
  std::memcpy(result, &io.value, bytes == 8 ? 8 : 4);
}

std::uint32_t ballot(bool predicate, Site site) {
  std::uint32_t io = predicate;
  meet(kBallot, &io, site, [](Warp& warp) {
    std::uint32_t bits = 0;
    for (int lane = 0; lane < kWarp; ++lane)
      bits |= *static_cast<std::uint32_t*>(warp.io[lane]) << lane;
    for (int lane = 0; lane < kWarp; ++lane)
      *static_cast<std::uint32_t*>(warp.io[lane]) = bits;
    return true;
  });
  return io;
}

void load_matrices(std::uint32_t* registers, int count, bool transposed, const void* shared_row, Site site) {
  struct Io {
    std::uint32_t* registers;
    const std::uint16_t* row;
    std::size_t offset;
  } io{registers, static_cast<const std::uint16_t*>(shared_row), 0};
  if (current->lane < 8 * count) {
    check_alignment(shared_row, 16, site);
    io.offset = shared_offset(shared_row, 16);
  }
  meet(kLoadMatrices, &io, site, [count, transposed](Warp& warp) {
    const Thread* const lanes = &block.threads[static_cast<std::size_t>(warp.index * kWarp)];
    for (int lane = 0; lane < 8 * count; ++lane)
      shared_read(lanes[lane], static_cast<Io*>(warp.io[lane])->offset, 16);
    for (int matrix = 0; matrix < count; ++matrix) {
      std::uint16_t elements[8][8];
      for (int row = 0; row < 8; ++row)
        std::memcpy(elements[row], static_cast<Io*>(warp.io[8 * matrix + row])->row, 16);
      for (int lane = 0; lane < kWarp; ++lane) {
        const int group = lane / 4, pair = 2 * (lane % 4);
        const std::uint32_t first = transposed ? elements[pair][group] : elements[group][pair];
        const std::uint32_t second = transposed ? elements[pair + 1][group] : elements[group][pair + 1];
        static_cast<Io*>(warp.io[lane])->registers[matrix] = first | second << 16;
      }
    }
    block.statistics.matrix_loads += static_cast<std::uint64_t>(count);
    return true;
  });
}

void multiply(float* accumulator, const std::uint32_t* a, const std::uint32_t* b, int depth, Site site) {
  MultiplyIo io{accumulator, a, b};
  meet(kMultiply, &io, site, [depth](Warp& warp) {
    if (depth == 16) {
      multiply_fragments<16>(warp);
    } else {
      multiply_fragments<8>(warp);
    }
    ++block.statistics.multiplications;
    return true;
  });
}

void check_alignment(const void* address, std::size_t bytes, Site site) {
  current->site = site;
  if (reinterpret_cast<std::uintptr_t>(address) % bytes != 0)
    fail("an address is not aligned to " + std::to_string(bytes) + " bytes");
}

bool in_bounds(bool condition, Site site) {
  current->site = site;
  return condition || dropped(site, SiteKind::kInBounds);
}

}  // namespace siglip2::simt
