// Sizes of the caches that kernels cut their work to. Results never depend on them.
#pragma once

#include <cstdint>

namespace siglip2::cpu {

// The L2 cache of a core; 1 MiB where the system does not say.
std::int64_t level2_cache_bytes();

}  // namespace siglip2::cpu
