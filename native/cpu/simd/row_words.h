// The 32-bit words that packed rows are made of, a vector of them from values that lie one after the other: pairs of
// bfloat16 numbers, for machines with AVX512-BF16, and quads of 8-bit integers. Values behind the first `count` are
// zeros.
#pragma once

#include "cpu/simd/tile.h"

#if defined(SIGLIP2_ISA_avx512)

namespace siglip2::SIGLIP2_ISA {

// As 32 bfloat16 numbers, those of `first` in the lower half. As vdpbf16ps, takes subnormal numbers for 0. An assembler
// statement, so that it can be inlined into code for all machines of the build.
SIGLIP2_INLINE Vec round_halves(Vec first, Vec second) {
  __m512i halves;
  asm("vcvtne2ps2bf16 %2, %1, %0" : "=v"(halves) : "v"(second.value), "v"(first.value));
  return from_bits(halves);
}

// Of a row that ends `count` values behind `source`, which may be before it.
SIGLIP2_INLINE Vec load_part(const float* source, std::int64_t count) {
  return count >= kLanes ? load(source) : count > 0 ? load_first(source, static_cast<int>(count)) : zero();
}

SIGLIP2_INLINE Vec pair_words(const float* source, std::int64_t count) {
  return round_halves(load_part(source, count), load_part(source + kLanes, count - kLanes));
}
// The same of numbers that are rounded already: two of them are a word.
SIGLIP2_INLINE Vec pair_words(const BFloat16* source, std::int64_t count) {
  if (count >= 2 * kLanes) return load(reinterpret_cast<const float*>(source));
  BFloat16 values[2 * kLanes] = {};
  std::memcpy(values, source, static_cast<std::size_t>(count) * sizeof(BFloat16));
  return load(reinterpret_cast<const float*>(values));
}

// The values multiplied by `inverse` and rounded.
SIGLIP2_INLINE Vec quad_words(const float* source, std::int64_t count, Vec inverse) {
  __m512i words = _mm512_setzero_si512();
  const auto quarter = [&](int part) __attribute__((always_inline)) {
    const Vec values = load_part(source + part * kLanes, count - part * kLanes);
    return _mm512_cvtepi32_epi8(bits_of(rounded_bits(values * inverse)));
  };
  words = _mm512_inserti32x4(words, quarter(0), 0);
  words = _mm512_inserti32x4(words, quarter(1), 1);
  words = _mm512_inserti32x4(words, quarter(2), 2);
  return from_bits(_mm512_inserti32x4(words, quarter(3), 3));
}

// Packs a tile of at most kTileRows rows of `count` values, kValues of them a word, as `a` of TileArgs:
// words_of(row, first value) are the words of kLanes · kValues values. Up to kLanes floats behind are overwritten.
template <int kValues, typename WordsOf>
SIGLIP2_INLINE void pack_words(std::int64_t rows, std::int64_t count, float* target, const WordsOf& words_of) {
  for (std::int64_t k = 0; k < count; k += kLanes * kValues) {
    Vec square[kLanes];
    load_square(rows, square, [&](std::int64_t i) __attribute__((always_inline)) { return words_of(i, k); });
    const std::int64_t words = (count - k + kValues - 1) / kValues;
    // Each store's surplus lanes are overwritten by the next.
    SIGLIP2_UNROLL for (int j = 0; j < kLanes; ++j) {
      if (j < words) store(target + j * kTileRows, square[j]);
    }
    target += kLanes * kTileRows;
  }
}

}  // namespace siglip2::SIGLIP2_ISA

#endif
