#include "cpu/simd/pair_panels.h"

namespace siglip2::SIGLIP2_ISA {
namespace {

// The first `lanes` values at `first` and at `second`, if it is there, rounded to bfloat16.
struct RoundedPair {
  Vec first;
  Vec second;
};
SIGLIP2_INLINE RoundedPair load_pair(const float* first, const float* second, int lanes) {
  const auto rounded = [&](const float* source) __attribute__((always_inline)) {
    return round_to_bfloat16(lanes == kLanes ? load(source) : load_first(source, lanes));
  };
  return {rounded(first), second != nullptr ? rounded(second) : zero()};
}

}  // namespace

void pack_transposed_pair_rows(const float* source, std::int64_t stride, std::int64_t depth, std::int64_t columns,
                               std::int64_t readable, float* panels) {
  // As many rows of the source at a time as keep apart in the L1 cache even where their distance is a power of two.
  constexpr std::int64_t kStepPairs = 4;
  const std::int64_t pairs = (depth + 1) / 2, words = pair_words();
  for (std::int64_t start = 0; start < pairs; start += kStepPairs) {
    const std::int64_t end = pairs - start < kStepPairs ? pairs : start + kStepPairs;
    for (std::int64_t column = 0; column < columns; column += kTileRows) {
      const int tile_columns = static_cast<int>(columns - column < kTileRows ? columns - column : kTileRows);
      const int lanes = static_cast<int>(readable - column < kLanes ? readable - column : kLanes);
      for (std::int64_t pair = start; pair < end; ++pair) {
        const float* const first = source + 2 * pair * stride + column;
        const RoundedPair values = load_pair(first, 2 * pair + 1 < depth ? first + stride : nullptr, lanes);
        float* const target = panels + (column * pairs + pair * kTileRows) * words;
        // Surplus lanes are overwritten by what follows in the panel.
        const bool last = pair + 1 == pairs;
        if (words == 1) {
          const Vec joined = join_pair(values.first, values.second);
          last ? store_first(target, joined, tile_columns) : store(target, joined);
        } else {
          store(target, values.first);
          last ? store_first(target + kTileRows, values.second, tile_columns)
               : store(target + kTileRows, values.second);
        }
      }
    }
  }
}

void pack_pair_columns(const float* source, std::int64_t stride, std::int64_t depth, std::int64_t columns,
                       float* panels) {
  const std::int64_t pairs = (depth + 1) / 2;
  for (std::int64_t pair = 0; pair < pairs; ++pair) {
    const float* const first = source + 2 * pair * stride;
    const float* const second = 2 * pair + 1 < depth ? first + stride : nullptr;
    for (std::int64_t column = 0; column < columns; column += kTileColumns) {
      float* const target = panels + column * pairs + pair * kTileColumns;
      SIGLIP2_UNROLL for (int v = 0; v < kTileVectors; ++v) {
        const std::int64_t at = column + v * kLanes, left = columns - at;
        if (left <= 0) {
          store(target + v * kLanes, zero());
          continue;
        }
        const int lanes = static_cast<int>(left < kLanes ? left : kLanes);
        const RoundedPair values = load_pair(first + at, second != nullptr ? second + at : nullptr, lanes);
        store(target + v * kLanes, join_pair(values.first, values.second));
      }
    }
  }
}

}  // namespace siglip2::SIGLIP2_ISA
