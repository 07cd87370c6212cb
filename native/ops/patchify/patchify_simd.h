// The inner loops of patchify_cpu.cc for each instruction set, on pairs of source positions; patchify_quads.h has those
// on quads. Included by kernels only (see cpu/isa.h).
//
// All work in blocks of 16 lanes by one pair: 32 bytes, for each lane the bytes of source positions 2i and 2i + 1. In
// the horizontal pass lanes are 16 source rows and there is one block for each colour channel; in the vertical pass
// lanes are 16 of the values of a row. Both passes are therefore the same loop, `filter_bytes`.
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu/isa.h"
#include "ops/patchify/patchify_plan.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace siglip2::SIGLIP2_ISA {
namespace {

inline constexpr int kBlockLanes = 16;
inline constexpr int kChannels = 3;
inline constexpr int kBlockBytes = 2 * kBlockLanes;
inline constexpr int kPairBytes = kChannels * kBlockBytes;    // one pair of columns of 16 rows
inline constexpr int kGroupValues = kChannels * kBlockLanes;  // values that one call of a filter function makes
inline constexpr int kGroupPixels = 4;                        // read at once from a source row,
inline constexpr int kLoadBytes = 16;                         // in so many bytes

// Where the bytes of a pixel group lie in the 16 bytes read: for each unit of neighbours, for each channel, the bytes
// of its `positions` pixels. Grey is repeated.
struct PixelOrder {
  alignas(16) std::uint8_t offsets[16];

  PixelOrder(int channels, int positions) {
    for (int i = 0; i < 16; ++i) {
      const int pixel = i / (positions * kChannels) * positions + i % positions;
      const int channel = channels < 3 ? 0 : i / positions % kChannels;
      offsets[i] = static_cast<std::uint8_t>(pixel < kGroupPixels ? pixel * channels + channel : 0x80);
    }
  }
};

#if defined(__AVX2__)

// Transposes 8 × 8 units of 16 bits in both halves.
inline void transpose_units(__m256i v[8]) {
  __m256i a[8];
  for (int i = 0; i < 8; i += 2) {
    a[i] = _mm256_unpacklo_epi16(v[i], v[i + 1]);
    a[i + 1] = _mm256_unpackhi_epi16(v[i], v[i + 1]);
  }
  __m256i b[8];
  for (int i = 0; i < 8; i += 4) {
    b[i] = _mm256_unpacklo_epi32(a[i], a[i + 2]);
    b[i + 1] = _mm256_unpackhi_epi32(a[i], a[i + 2]);
    b[i + 2] = _mm256_unpacklo_epi32(a[i + 1], a[i + 3]);
    b[i + 3] = _mm256_unpackhi_epi32(a[i + 1], a[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    v[2 * i] = _mm256_unpacklo_epi64(b[i], b[i + 4]);
    v[2 * i + 1] = _mm256_unpackhi_epi64(b[i], b[i + 4]);
  }
}

inline __m256i load_halves(const std::uint8_t* low, const std::uint8_t* high) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(low))),
                                 _mm_loadu_si128(reinterpret_cast<const __m128i*>(high)), 1);
}

// Four pixels of 16 rows, `step` bytes apart, → two pairs of columns.
inline void gather_pairs(const std::uint8_t* pixels, std::int64_t step, const PixelOrder& order, std::uint8_t* pairs) {
  const __m256i shuffle = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(order.offsets)));
  __m256i v[8];
  for (int i = 0; i < 8; ++i)
    v[i] = _mm256_shuffle_epi8(load_halves(pixels + i * step, pixels + (i + 8) * step), shuffle);
  transpose_units(v);
  for (int i = 0; i < 2 * kChannels; ++i) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(pairs + i * kBlockBytes), v[i]);
  }
}

// 16 columns of 16 rows, `step` bytes apart, → 8 pairs of rows, `stride` bytes apart.
inline void scatter_bytes(const std::uint8_t* columns, std::int64_t step, std::uint8_t* pairs, std::int64_t stride) {
  __m256i v[8];
  for (int i = 0; i < 8; ++i)
    v[i] = load_halves(columns + i * step, columns + (i + 8) * step);
  transpose_units(v);
  for (int i = 0; i < 8; ++i)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(pairs + i * stride), v[i]);
}

inline int bits_of(const void* weights) {
  int bits;
  std::memcpy(&bits, weights, sizeof bits);
  return bits;
}

#else

inline void gather_pairs(const std::uint8_t* pixels, std::int64_t step, const PixelOrder& order, std::uint8_t* pairs) {
  for (int row = 0; row < kBlockLanes; ++row, pixels += step) {
    for (int unit = 0; unit < 2 * kChannels; ++unit) {
      pairs[unit * kBlockBytes + 2 * row] = pixels[order.offsets[2 * unit]];
      pairs[unit * kBlockBytes + 2 * row + 1] = pixels[order.offsets[2 * unit + 1]];
    }
  }
}

inline void scatter_bytes(const std::uint8_t* columns, std::int64_t step, std::uint8_t* pairs, std::int64_t stride) {
  for (int column = 0; column < kBlockLanes; ++column) {
    for (int pair = 0; pair < kBlockLanes / 2; ++pair) {
      std::memcpy(pairs + pair * stride + 2 * column, columns + column * step + 2 * pair, 2);
    }
  }
}

#endif

// The sums Σ_k pair_k · weight_k + 2^21 of one block, modulo 2^32: products with the low parts of the weights in 32
// bits, with the high parts in 16, since only their lower 16 bits reach the sum.
#if defined(__AVX512BW__)

struct BlockSum {
  __m512i low = _mm512_set1_epi32(1 << (kWeightBits - 1));
  __m256i high = _mm256_setzero_si256();

  struct Weight {
    __m512i low;
    __m256i high;
    explicit Weight(const PairWeight& weight)
        : low(_mm512_set1_epi32(bits_of(weight.low))), high(_mm256_set1_epi32(bits_of(weight.high))) {}
  };

  void add(const std::uint8_t* block, const Weight& weight) {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block));
    high = _mm256_add_epi16(high, _mm256_maddubs_epi16(bytes, weight.high));
    low = _mm512_add_epi32(low, _mm512_madd_epi16(_mm512_cvtepu8_epi16(bytes), weight.low));
  }

  void store(std::uint8_t* out) const {
    const __m512i sum = _mm512_add_epi32(low, _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), kWeightLowBits));
    const __m512i byte = _mm512_max_epi32(_mm512_srai_epi32(sum, kWeightBits), _mm512_setzero_si512());
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_cvtusepi32_epi8(byte));
  }
};

#elif defined(__AVX2__)

struct BlockSum {
  // Typed vectors, not __m256i: GCC 12 copies sums from register to register (and, short of registers, to memory) at
  // every addition where it has to convert between the two.
  using Int32Lanes = std::uint32_t __attribute__((vector_size(32)));
  using Int16Lanes = std::uint16_t __attribute__((vector_size(32)));
  Int32Lanes low0 = reinterpret_cast<Int32Lanes>(_mm256_set1_epi32(1 << (kWeightBits - 1)));  // lanes 0–3, 8–11
  Int32Lanes low1 = low0;                                                                     // lanes 4–7, 12–15
  Int16Lanes high = {};

  struct Weight {
    __m256i low;
    __m256i high;
    explicit Weight(const PairWeight& weight)
        : low(_mm256_set1_epi32(bits_of(weight.low))), high(_mm256_set1_epi32(bits_of(weight.high))) {}
  };

  void add(const std::uint8_t* block, const Weight& weight) {
    const __m256i zero = _mm256_setzero_si256();
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block));
    high += reinterpret_cast<Int16Lanes>(_mm256_maddubs_epi16(bytes, weight.high));
    low0 += reinterpret_cast<Int32Lanes>(_mm256_madd_epi16(_mm256_unpacklo_epi8(bytes, zero), weight.low));
    low1 += reinterpret_cast<Int32Lanes>(_mm256_madd_epi16(_mm256_unpackhi_epi8(bytes, zero), weight.low));
  }

  void store(std::uint8_t* out) const {
    const __m256i zero = _mm256_setzero_si256();
    const __m256i sum0 =
        _mm256_add_epi32(reinterpret_cast<__m256i>(low0), _mm256_unpacklo_epi16(zero, reinterpret_cast<__m256i>(high)));
    const __m256i sum1 =
        _mm256_add_epi32(reinterpret_cast<__m256i>(low1), _mm256_unpackhi_epi16(zero, reinterpret_cast<__m256i>(high)));
    const __m256i words =
        _mm256_packs_epi32(_mm256_srai_epi32(sum0, kWeightBits), _mm256_srai_epi32(sum1, kWeightBits));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out),
                     _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
  }
};

#endif

// out[48] = clamp((2^21 + Σ_k pair_k · weight_k) >> 22) for three blocks of lanes; pairs lie `stride` bytes apart.
#if defined(__AVX2__)

inline void filter_bytes(const std::uint8_t* pairs, std::int64_t stride, const PairWeight* weights, std::int64_t count,
                         std::uint8_t* out) {
  // Three at once, to load weights once.
  BlockSum a, b, c;
  const PairWeight* end = weights + count;
  do {
    const BlockSum::Weight weight(*weights);
    a.add(pairs, weight);
    b.add(pairs + kBlockBytes, weight);
    c.add(pairs + 2 * kBlockBytes, weight);
    pairs += stride;
  } while (++weights != end);
  a.store(out);
  b.store(out + kBlockLanes);
  c.store(out + 2 * kBlockLanes);
}

#else

inline void filter_bytes(const std::uint8_t* pairs, std::int64_t stride, const PairWeight* weights, std::int64_t count,
                         std::uint8_t* out) {
  std::uint32_t low[kGroupValues];
  std::uint16_t high[kGroupValues];
  for (int lane = 0; lane < kGroupValues; ++lane) {
    low[lane] = 1 << (kWeightBits - 1);
    high[lane] = 0;
  }
  for (std::int64_t k = 0; k < count; ++k, pairs += stride) {
    const PairWeight weight = weights[k];
    for (int lane = 0; lane < kGroupValues; ++lane) {
      const std::int16_t even = pairs[2 * lane];
      const std::int16_t odd = pairs[2 * lane + 1];
      low[lane] += static_cast<std::uint32_t>(even * weight.low[0] + odd * weight.low[1]);
      high[lane] = static_cast<std::uint16_t>(high[lane] + even * weight.high[0] + odd * weight.high[1]);
    }
  }
  for (int lane = 0; lane < kGroupValues; ++lane) {
    const std::uint32_t sum = low[lane] + (static_cast<std::uint32_t>(high[lane]) << kWeightLowBits);
    const std::int32_t byte = static_cast<std::int32_t>(sum) >> kWeightBits;
    out[lane] = static_cast<std::uint8_t>(byte < 0 ? 0 : byte > 255 ? 255 : byte);
  }
}

#endif

// The same in float32: out[48] = Σ_k pair_k · weight_k, pairs of bytes.
#if defined(__AVX2__)

inline void filter_columns(const std::uint8_t* pairs, std::int64_t stride, const float* weights, std::int64_t count,
                           float* out) {
  const __m256i zero = _mm256_setzero_si256();
  const __m256i even_mask = _mm256_set1_epi32(0xFFFF);
  for (int i = 0; i < kChannels; ++i) {
    __m256 sum0 = _mm256_setzero_ps();  // lanes 0–3, 8–11
    __m256 sum1 = _mm256_setzero_ps();  // lanes 4–7, 12–15
    const std::uint8_t* block = pairs + i * kBlockBytes;
    for (std::int64_t k = 0; k < count; ++k, block += stride) {
      const __m256 even = _mm256_set1_ps(weights[2 * k]);
      const __m256 odd = _mm256_set1_ps(weights[2 * k + 1]);
      const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block));
      const __m256i words0 = _mm256_unpacklo_epi8(bytes, zero);
      const __m256i words1 = _mm256_unpackhi_epi8(bytes, zero);
      sum0 = _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_and_si256(words0, even_mask)), even, sum0);
      sum1 = _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_and_si256(words1, even_mask)), even, sum1);
      sum0 = _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_srli_epi32(words0, 16)), odd, sum0);
      sum1 = _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_srli_epi32(words1, 16)), odd, sum1);
    }
    _mm256_storeu_ps(out + i * kBlockLanes, _mm256_permute2f128_ps(sum0, sum1, 0x20));
    _mm256_storeu_ps(out + i * kBlockLanes + 8, _mm256_permute2f128_ps(sum0, sum1, 0x31));
  }
}

#else

inline void filter_columns(const std::uint8_t* pairs, std::int64_t stride, const float* weights, std::int64_t count,
                           float* out) {
  float sum[kGroupValues] = {};
  for (std::int64_t k = 0; k < count; ++k, pairs += stride) {
    const float even = weights[2 * k];
    const float odd = weights[2 * k + 1];
    for (int lane = 0; lane < kGroupValues; ++lane) {
      sum[lane] += static_cast<float>(pairs[2 * lane]) * even + static_cast<float>(pairs[2 * lane + 1]) * odd;
    }
  }
  std::memcpy(out, sum, sizeof sum);
}

#endif

// Σ over rows of float32, `stride` values apart.
inline void filter_rows(const float* rows, std::int64_t stride, const float* weights, std::int64_t count, float* out) {
  float sum[kGroupValues] = {};
  for (std::int64_t k = 0; k < count; ++k, rows += stride) {
    const float weight = weights[k];
    for (int lane = 0; lane < kGroupValues; ++lane)
      sum[lane] += rows[lane] * weight;
  }
  std::memcpy(out, sum, sizeof sum);
}

// 16 columns of 16 rows, `step` values apart, → 16 rows, `stride` values apart.
inline void scatter_floats(const float* columns, std::int64_t step, float* rows, std::int64_t stride) {
  for (int row = 0; row < kBlockLanes; ++row) {
    for (int column = 0; column < kBlockLanes; ++column)
      rows[row * stride + column] = columns[column * step + row];
  }
}

}  // namespace
}  // namespace siglip2::SIGLIP2_ISA
