// The inner loops of patchify_cpu.cc for each instruction set. Included by kernels only (see cpu/isa.h).
//
// All work in blocks of 16 lanes by one pair: 32 bytes, for each lane the bytes of source positions 2i and 2i + 1. In
// the horizontal pass lanes are 16 source rows and there is one block for each colour channel; in the vertical pass
// lanes are 16 of the values of a row. Both passes are therefore the same loop, `filter_bytes`.
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu/isa.h"
#include "ops/patchify/resample_filter.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace siglip2::SIGLIP2_ISA {
namespace {

inline constexpr int kLanes = 16;
inline constexpr int kChannels = 3;
inline constexpr int kBlockBytes = 2 * kLanes;
inline constexpr int kPairBytes = kChannels * kBlockBytes;  // one pair of columns of 16 rows
inline constexpr int kGroupValues = kChannels * kLanes;     // values that one call of a filter function makes
inline constexpr int kLoadBytes = 16;                       // read at once from a source row: four pixels

// Where the bytes of a pixel group lie in the 16 bytes read: [2 pairs · 3 channels] of {even, odd}. Grey is repeated.
struct PixelOrder {
  alignas(16) std::uint8_t offsets[16];

  explicit PixelOrder(int channels) {
    for (int unit = 0; unit < 8; ++unit) {
      const int channel = channels < 3 ? 0 : unit % kChannels;
      const int pixel = 2 * (unit / kChannels);
      const bool used = unit < 2 * kChannels;
      offsets[2 * unit] = static_cast<std::uint8_t>(used ? pixel * channels + channel : 0x80);
      offsets[2 * unit + 1] = static_cast<std::uint8_t>(used ? (pixel + 1) * channels + channel : 0x80);
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

// Four pixels of 16 rows → two pairs of columns.
inline void gather_group(const std::uint8_t* const rows[kLanes], std::int64_t offset, const PixelOrder& order,
                         std::uint8_t* pairs) {
  const __m256i shuffle = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(order.offsets)));
  __m256i v[8];
  for (int i = 0; i < 8; ++i)
    v[i] = _mm256_shuffle_epi8(load_halves(rows[i] + offset, rows[i + 8] + offset), shuffle);
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

inline int weights_of(const std::int16_t pair[2]) {
  int bits;
  std::memcpy(&bits, pair, sizeof bits);
  return bits;
}

#else

inline void gather_group(const std::uint8_t* const rows[kLanes], std::int64_t offset, const PixelOrder& order,
                         std::uint8_t* pairs) {
  for (int row = 0; row < kLanes; ++row) {
    const std::uint8_t* pixels = rows[row] + offset;
    for (int unit = 0; unit < 2 * kChannels; ++unit) {
      pairs[unit * kBlockBytes + 2 * row] = pixels[order.offsets[2 * unit]];
      pairs[unit * kBlockBytes + 2 * row + 1] = pixels[order.offsets[2 * unit + 1]];
    }
  }
}

inline void scatter_bytes(const std::uint8_t* columns, std::int64_t step, std::uint8_t* pairs, std::int64_t stride) {
  for (int column = 0; column < kLanes; ++column) {
    for (int pair = 0; pair < kLanes / 2; ++pair) {
      std::memcpy(pairs + pair * stride + 2 * column, columns + column * step + 2 * pair, 2);
    }
  }
}

#endif

// filter_bytes: out[48] = clamp((2^21 + Σ_k pair_k · weight_k) >> 22) for 48 lanes; pairs lie `stride` bytes apart.
#if defined(__AVX512BW__)

inline void filter_bytes(const std::uint8_t* pairs, std::int64_t stride, const PairWeight* weights, std::int64_t count,
                         std::uint8_t* out) {
  __m512i low[kChannels];
  __m512i high[kChannels];
  for (int i = 0; i < kChannels; ++i) {
    low[i] = _mm512_set1_epi32(1 << (kWeightBits - 1));
    high[i] = _mm512_setzero_si512();
  }
  for (std::int64_t k = 0; k < count; ++k, pairs += stride) {
    const __m512i weight_low = _mm512_set1_epi32(weights_of(weights[k].low));
    const __m512i weight_high = _mm512_set1_epi32(weights_of(weights[k].high));
    for (int i = 0; i < kChannels; ++i) {
      const __m512i pixels =
          _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(pairs + i * kBlockBytes)));
      low[i] = _mm512_add_epi32(low[i], _mm512_madd_epi16(pixels, weight_low));
      high[i] = _mm512_add_epi32(high[i], _mm512_madd_epi16(pixels, weight_high));
    }
  }
  for (int i = 0; i < kChannels; ++i) {
    const __m512i sum = _mm512_add_epi32(low[i], _mm512_slli_epi32(high[i], kWeightLowBits));
    const __m512i byte = _mm512_max_epi32(_mm512_srai_epi32(sum, kWeightBits), _mm512_setzero_si512());
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i * kLanes), _mm512_cvtusepi32_epi8(byte));
  }
}

#elif defined(__AVX2__)

inline void filter_bytes(const std::uint8_t* pairs, std::int64_t stride, const PairWeight* weights, std::int64_t count,
                         std::uint8_t* out) {
  __m256i low[2 * kChannels];
  __m256i high[2 * kChannels];
  for (int i = 0; i < 2 * kChannels; ++i) {
    low[i] = _mm256_set1_epi32(1 << (kWeightBits - 1));
    high[i] = _mm256_setzero_si256();
  }
  for (std::int64_t k = 0; k < count; ++k, pairs += stride) {
    const __m256i weight_low = _mm256_set1_epi32(weights_of(weights[k].low));
    const __m256i weight_high = _mm256_set1_epi32(weights_of(weights[k].high));
    for (int i = 0; i < 2 * kChannels; ++i) {
      const __m256i pixels =
          _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(pairs + i * (kBlockBytes / 2))));
      low[i] = _mm256_add_epi32(low[i], _mm256_madd_epi16(pixels, weight_low));
      high[i] = _mm256_add_epi32(high[i], _mm256_madd_epi16(pixels, weight_high));
    }
  }
  for (int i = 0; i < kChannels; ++i) {
    __m256i sum[2];
    for (int half = 0; half < 2; ++half) {
      const __m256i total = _mm256_add_epi32(low[2 * i + half], _mm256_slli_epi32(high[2 * i + half], kWeightLowBits));
      sum[half] = _mm256_srai_epi32(total, kWeightBits);
    }
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(sum[0], sum[1]), 0xD8);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i * kLanes),
                     _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
  }
}

#else

inline void filter_bytes(const std::uint8_t* pairs, std::int64_t stride, const PairWeight* weights, std::int64_t count,
                         std::uint8_t* out) {
  std::int32_t low[kGroupValues];
  std::int32_t high[kGroupValues];
  for (int lane = 0; lane < kGroupValues; ++lane) {
    low[lane] = 1 << (kWeightBits - 1);
    high[lane] = 0;
  }
  for (std::int64_t k = 0; k < count; ++k, pairs += stride) {
    const PairWeight weight = weights[k];
    for (int lane = 0; lane < kGroupValues; ++lane) {
      const std::int16_t even = pairs[2 * lane];
      const std::int16_t odd = pairs[2 * lane + 1];
      low[lane] += even * weight.low[0] + odd * weight.low[1];
      high[lane] += even * weight.high[0] + odd * weight.high[1];
    }
  }
  for (int lane = 0; lane < kGroupValues; ++lane) {
    const std::int32_t byte = (low[lane] + high[lane] * (1 << kWeightLowBits)) >> kWeightBits;
    out[lane] = static_cast<std::uint8_t>(byte < 0 ? 0 : byte > 255 ? 255 : byte);
  }
}

#endif

// The same in float32: out[48] = Σ_k pair_k · weight_k, pairs of bytes.
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
  for (int row = 0; row < kLanes; ++row) {
    for (int column = 0; column < kLanes; ++column)
      rows[row * stride + column] = columns[column * step + row];
  }
}

}  // namespace
}  // namespace siglip2::SIGLIP2_ISA
