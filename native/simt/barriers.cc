// Barriers among the warps of a block. The lanes of a warp meet first, as the hardware's aligned barriers demand; then
// the warp arrives as one. What every participant did before, it passes on to those that wait.
#include <string>

#include "simt/collectives.h"
#include "simt/sites.h"

namespace siglip2::simt {
namespace {

constexpr char kBlockBarrier[] = "block_barrier";
constexpr char kNamedBarrierWait[] = "named_barrier_wait";
constexpr char kNamedBarrierArrive[] = "named_barrier_arrive";

struct Io {
  int id;
  int threads;
};

void acquire(Warp& warp, const Barrier& barrier) {
  for (int other = 0; other < block.warp_count; ++other)
    if (barrier.clock[other] > warp.clock[other]) warp.clock[other] = barrier.clock[other];
}

// Whether the warp's lanes go on.
bool arrive(Warp& warp, bool wait) {
  const Io io = warp.io<Io>(0);
  for (int lane = 1; lane < kWarp; ++lane) {
    const Io& other = warp.io<Io>(lane);
    if (other.id != io.id || other.threads != io.threads)
      fail("lanes of a warp disagree about the barrier they are at");
  }
  ++block.statistics.barriers;
  Barrier& barrier = block.barriers[io.id];
  const std::uint32_t bit = 1u << warp.index;
  if (barrier.arrived == 0) {
    barrier = {};
    barrier.expected = io.threads;
  }
  if (barrier.expected != io.threads)
    fail("barrier " + std::to_string(io.id) + " expects " + std::to_string(barrier.expected) + " threads, not " +
         std::to_string(io.threads));
  if ((barrier.arrived_warps & bit) != 0)
    fail("the warp arrives at barrier " + std::to_string(io.id) + " again before the others have");
  barrier.arrived += kWarp;
  barrier.arrived_warps |= bit;
  // All that the warp knows, and its own accesses up to now.
  for (int other = 0; other < block.warp_count; ++other)
    if (warp.clock[other] > barrier.clock[other]) barrier.clock[other] = warp.clock[other];
  barrier.clock[warp.index] = warp.epoch;
  advance(warp);
  if (wait) barrier.waiting_warps |= bit;
  if (barrier.arrived < barrier.expected) return !wait;
  for (std::uint32_t left = barrier.waiting_warps; left != 0; left &= left - 1) {
    Warp& waiting = block.warps[__builtin_ctz(left)];
    acquire(waiting, barrier);
    make_ready(waiting);
  }
  barrier.arrived = 0;
  return true;
}

void check_named(int id, int threads) {
  if (id < 1 || id >= kBarriers) fail("there is no named barrier " + std::to_string(id));
  if (threads <= 0 || threads % kWarp != 0 || threads > block.thread_count)
    fail("a barrier of " + std::to_string(threads) + " threads");
}

}  // namespace

void block_barrier(Site site) {
  if (dropped(site, SiteKind::kBlockBarrier)) return;
  current->warp->io<Io>(current->lane) = {0, block.thread_count};
  meet(kBlockBarrier, site, [](Warp& warp) { return arrive(warp, true); });
}

void named_barrier_wait(int id, int threads, Site site) {
  if (dropped(site, SiteKind::kNamedBarrierWait)) return;
  current->site = site;
  check_named(id, threads);
  current->warp->io<Io>(current->lane) = {id, threads};
  meet(kNamedBarrierWait, site, [](Warp& warp) { return arrive(warp, true); });
}

void named_barrier_arrive(int id, int threads, Site site) {
  if (dropped(site, SiteKind::kNamedBarrierArrive)) return;
  current->site = site;
  check_named(id, threads);
  current->warp->io<Io>(current->lane) = {id, threads};
  meet(kNamedBarrierArrive, site, [](Warp& warp) { return arrive(warp, false); });
}

}  // namespace siglip2::simt
