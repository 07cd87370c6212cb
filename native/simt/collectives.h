// Where the lanes of a warp meet.
#pragma once

#include "simt/block.h"

namespace siglip2::simt {

[[noreturn]] void fail_divergent(const char* operation, Site site);
[[noreturn]] void fail_ended_lanes(const char* operation);

inline bool same_place(Site a, Site b) {
  return a.line == b.line && (a.file == b.file || __builtin_strcmp(a.file, b.file) == 0);
}

// All 32 lanes come to the same operation at the same place, each with its Warp::io. The last one calls
// execute(warp), which says whether the lanes go on; otherwise they stay parked until make_ready. `operation` is
// compared by its address.
template <typename Execute>
void meet(const char* operation, Site site, Execute execute) {
  Thread& me = *current;
  Warp& warp = *me.warp;
  me.site = site;
  if (!me.copies.empty()) maybe_land_copies(me);
  if (warp.arrived == 0) {
    if (warp.done != 0) fail_ended_lanes(operation);
    warp.operation = operation;
    warp.site = site;
  } else if (warp.operation != operation || !same_place(warp.site, site)) {
    fail_divergent(operation, site);
  }
  me.operation = operation;
  warp.arrived |= 1u << me.lane;
  if (warp.arrived == ~0u) {
    warp.arrived = 0;
    if (execute(warp)) {
      make_ready(warp);
      return;
    }
  }
  park();
}

}  // namespace siglip2::simt
