#include "simt/sites.h"

#include <cstring>
#include <mutex>
#include <set>

#include "simt/block.h"
#include "tensor/error.h"

namespace siglip2::simt {
namespace {

constexpr const char* kNames[] = {"block_barrier", "named_barrier_wait", "named_barrier_arrive",
                                  "warp_barrier",  "async_copy_commit",  "async_copy_wait",
                                  "in_bounds"};

bool recording = false;
std::set<std::string> recorded;
std::string dropped_file;
int dropped_line = 0;
SiteKind dropped_kind = SiteKind::kInBounds;

// Sites already in `recorded`, by the address of their file's name.
struct Seen {
  const char* file;
  int line;
  SiteKind kind;
  bool operator<(const Seen& other) const {
    if (line != other.line) return line < other.line;
    if (file != other.file) return file < other.file;
    return kind < other.kind;
  }
};
std::set<Seen> seen;

void update_observed() {
  sites_observed = recording || dropped_line != 0;
}

}  // namespace

bool sites_observed = false;

const char* short_path(const char* file) {
  const char* path = file;
  for (const char* next = file; (next = std::strstr(next, "native/")) != nullptr; ++next)
    path = next;
  return path;
}

bool observe_site(Site site, SiteKind kind) {
  if (recording && seen.insert({site.file, site.line, kind}).second)
    recorded.insert(describe(site) + " " + kNames[static_cast<int>(kind)]);
  return site.line == dropped_line && kind == dropped_kind && dropped_file == short_path(site.file);
}

void record_sites(bool on) {
  recording = on;
  if (on) {
    recorded.clear();
    seen.clear();
  }
  update_observed();
}

std::string list_sites() {
  std::string lines;
  for (const std::string& site : recorded)
    lines += site + "\n";
  return lines;
}

void drop_site(const std::string& file_and_line, const std::string& kind) {
  const std::size_t colon = file_and_line.rfind(':');
  int line = 0;
  if (colon != std::string::npos) line = std::atoi(file_and_line.c_str() + colon + 1);
  int index = -1;
  for (int i = 0; i < static_cast<int>(std::size(kNames)); ++i)
    if (kind == kNames[i]) index = i;
  if (line <= 0 || index < 0) throw Error(kErrorCuda, "drop wants FILE:LINE KIND, not " + file_and_line + " " + kind);
  dropped_file = file_and_line.substr(0, colon);
  dropped_line = line;
  dropped_kind = static_cast<SiteKind>(index);
  update_observed();
}

void drop_no_site() {
  dropped_line = 0;
  update_observed();
}

}  // namespace siglip2::simt
