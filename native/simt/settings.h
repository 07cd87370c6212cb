// What tests can set: see control.cc.
#pragma once

#include <cstdint>
#include <optional>

#include "simt/block.h"

namespace siglip2::simt {

struct Settings {
  std::uint64_t seed;
  std::uint64_t launches = 0;        // since the seed was set
  std::optional<Schedule> schedule;  // none: another one for each launch
};
extern Settings settings;

}  // namespace siglip2::simt
