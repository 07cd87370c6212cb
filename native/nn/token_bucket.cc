#include "nn/token_bucket.h"

#include <algorithm>
#include <bit>

namespace siglip2 {

TokenBucket token_bucket(const Offsets& offsets) {
  const std::int64_t tokens = offsets.tokens();
  if (tokens > kMostBucketTokens) return {tokens, 0};
  std::int64_t longest = 64;
  for (std::int64_t sequence = 0; sequence < offsets.sequences(); ++sequence)
    longest = std::max(longest, offsets.length(sequence));
  const auto power = [](std::int64_t least) {
    return static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(least)));
  };
  const std::int64_t step = std::max<std::int64_t>(16, power(tokens) / 16);
  return {(tokens + step - 1) / step * step, power(longest)};
}

}  // namespace siglip2
