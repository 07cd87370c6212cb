// Places where a kernel synchronises or checks bounds: kept when asked for, and left out one at a time by mutation
// tests.
#pragma once

#include <string>

#include "simt/simt.h"

namespace siglip2::simt {

enum class SiteKind {
  kBlockBarrier,
  kNamedBarrierWait,
  kNamedBarrierArrive,
  kWarpBarrier,
  kAsyncCopyCommit,
  kAsyncCopyWait,
  kInBounds,
};

extern bool sites_observed;  // whether sites are kept or one is dropped
bool observe_site(Site site, SiteKind kind);

// Whether the site is to be left out.
inline bool dropped(Site site, SiteKind kind) {
  return sites_observed && observe_site(site, kind);
}

void record_sites(bool on);
// Sites met since recording began, one a line: "file:line kind".
std::string list_sites();
// `file_and_line` as listed. Throws when it is not such a place.
void drop_site(const std::string& file_and_line, const std::string& kind);
void drop_no_site();

// The path from the source folder on.
const char* short_path(const char* file);

}  // namespace siglip2::simt
