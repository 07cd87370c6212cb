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
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Half a row of an accumulator: a register of the plainest vector unit.
typedef float Half __attribute__((vector_size(16)));

struct MultiplyIo {
  std::uint32_t a[4];
  std::uint32_t b[2];
  float sum[4];
};

// Products are exact in float32, and so is their order; the accumulator joins at the end, as on the hardware.
template <int kDepth>
void multiply_fragments(Warp& warp) {
  float left[16][kDepth];
  alignas(16) float right[kDepth][8];
  for (int lane = 0; lane < kWarp; ++lane) {
    const MultiplyIo& mine = warp.io<MultiplyIo>(lane);
    const int group = lane / 4, pair = 2 * (lane % 4);
    for (int part = 0; part < kDepth / 8; ++part) {
      const std::uint32_t upper = mine.a[2 * part], lower = mine.a[2 * part + 1], b = mine.b[part];
      const int column = 8 * part + pair;
      left[group][column] = widen(upper << 16);
      left[group][column + 1] = widen(upper & 0xFFFF0000);
      left[group + 8][column] = widen(lower << 16);
      left[group + 8][column + 1] = widen(lower & 0xFFFF0000);
      right[column][group] = widen(b << 16);
      right[column + 1][group] = widen(b & 0xFFFF0000);
    }
  }
  for (int row = 0; row < 16; ++row) {
    Half first{}, second{};
    for (int k = 0; k < kDepth; ++k) {
      const float factor = left[row][k];
      first += factor * *reinterpret_cast<const Half*>(right[k]);
      second += factor * *reinterpret_cast<const Half*>(right[k] + 4);
    }
    for (int t = 0; t < 4; ++t) {
      float* const d = warp.io<MultiplyIo>(row % 8 * 4 + t).sum + 2 * (row / 8);
      d[0] = t < 2 ? first[2 * t] : second[2 * t - 4];
      d[1] = t < 2 ? first[2 * t + 1] : second[2 * t - 3];
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
  meet(kWarpBarrier, site, [](Warp& warp) {
    warp.clock[warp.index] = warp.epoch;
    advance(warp);
    return true;
  });
}

void shuffle(const void* value, void* result, std::size_t bytes, int source, Site site) {
  struct Io {
    std::uint64_t value;
    int source;
  };
  Io& io = current->warp->io<Io>(current->lane);
  std::memcpy(&io.value, value, bytes == 8 ? 8 : 4);
  io.source = source;
  meet(kShuffle, site, [](Warp& warp) {
    std::uint64_t values[kWarp];
    for (int lane = 0; lane < kWarp; ++lane)
      values[lane] = warp.io<Io>(lane).value;
    for (int lane = 0; lane < kWarp; ++lane) {
      Io& mine = warp.io<Io>(lane);
      mine.value = values[mine.source & (kWarp - 1)];
    }
    return true;
  });
  std::memcpy(result, &io.value, bytes == 8 ? 8 : 4);
}

std::uint32_t ballot(bool predicate, Site site) {
  std::uint32_t& io = current->warp->io<std::uint32_t>(current->lane);
  io = predicate;
  meet(kBallot, site, [](Warp& warp) {
    std::uint32_t bits = 0;
    for (int lane = 0; lane < kWarp; ++lane)
      bits |= warp.io<std::uint32_t>(lane) << lane;
    for (int lane = 0; lane < kWarp; ++lane)
      warp.io<std::uint32_t>(lane) = bits;
    return true;
  });
  return io;
}

void load_matrices(std::uint32_t* registers, int count, bool transposed, const void* shared_row, Site site) {
  struct Io {
    std::uint32_t registers[4];
    std::uint32_t offset;
  };
  Io& io = current->warp->io<Io>(current->lane);
  if (current->lane < 8 * count) {
    check_alignment(shared_row, 16, site);
    io.offset = static_cast<std::uint32_t>(shared_offset(shared_row, 16));
  }
  meet(kLoadMatrices, site, [count, transposed](Warp& warp) {
    const Thread* const lanes = &block.threads[static_cast<std::size_t>(warp.index * kWarp)];
    for (int lane = 0; lane < 8 * count; ++lane)
      shared_read(lanes[lane], warp.io<Io>(lane).offset, 16);
    for (int matrix = 0; matrix < count; ++matrix) {
      std::uint16_t elements[8][8];
      for (int row = 0; row < 8; ++row)
        std::memcpy(elements[row], block.shared + warp.io<Io>(8 * matrix + row).offset, 16);
      for (int lane = 0; lane < kWarp; ++lane) {
        const int group = lane / 4, pair = 2 * (lane % 4);
        const std::uint32_t first = transposed ? elements[pair][group] : elements[group][pair];
        const std::uint32_t second = transposed ? elements[pair + 1][group] : elements[group][pair + 1];
        warp.io<Io>(lane).registers[matrix] = first | second << 16;
      }
    }
    block.statistics.matrix_loads += static_cast<std::uint64_t>(count);
    return true;
  });
  std::memcpy(registers, io.registers, static_cast<std::size_t>(count) * sizeof *registers);
}

void multiply(float* accumulator, const std::uint32_t* a, const std::uint32_t* b, int depth, Site site) {
  MultiplyIo& io = current->warp->io<MultiplyIo>(current->lane);
  std::memcpy(io.a, a, depth == 16 ? 16 : 8);
  std::memcpy(io.b, b, depth == 16 ? 8 : 4);
  meet(kMultiply, site, [depth](Warp& warp) {
    if (depth == 16) {
      multiply_fragments<16>(warp);
    } else {
      multiply_fragments<8>(warp);
    }
    ++block.statistics.multiplications;
    return true;
  });
  for (int i = 0; i < 4; ++i)
    accumulator[i] += io.sum[i];
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
