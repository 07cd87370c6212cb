// The inner loops of patchify_cpu.cc on quads of source positions, for machines that multiply four bytes by four bytes
// and add the products to a sum in one instruction (vpdpbusd), and in portable form. Included by kernels only (see
// cpu/isa.h).
//
// As in patchify_simd.h, blocks are of 16 lanes, here of 64 bytes: for each lane those of source positions 4i to 4i
// + 3.
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu/isa.h"
#include "ops/patchify/patchify_plan.h"
#include "ops/patchify/patchify_simd.h"

namespace siglip2::SIGLIP2_ISA {
namespace {

// Whether this build has them: elsewhere pairs are as good, or there is no such instruction. wide16 has them for tests.
#if defined(SIGLIP2_ISA_avx512) || defined(SIGLIP2_ISA_wide16)
#define SIGLIP2_PATCHIFY_QUADS 1
#endif

#if defined(SIGLIP2_PATCHIFY_QUADS)

inline constexpr int kQuadBlockBytes = 4 * kBlockLanes;
inline constexpr int kQuadBytes = kChannels * kQuadBlockBytes;  // one quad of columns of 16 rows

#if defined(SIGLIP2_ISA_avx512)

// 16 bytes of each of four rows, `step` bytes apart.
inline __m512i load_quarters(const std::uint8_t* from, std::int64_t step) {
  const auto row = [&](int i) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i * step)); };
  const __m512i first = _mm512_inserti32x4(_mm512_castsi128_si512(row(0)), row(1), 1);
  return _mm512_inserti32x4(_mm512_inserti32x4(first, row(2), 2), row(3), 3);
}

// Transposes 4 × 4 units of 32 bits in each quarter.
inline void transpose_quarters(__m512i v[4]) {
  const __m512i a = _mm512_unpacklo_epi32(v[0], v[1]);
  const __m512i b = _mm512_unpackhi_epi32(v[0], v[1]);
  const __m512i c = _mm512_unpacklo_epi32(v[2], v[3]);
  const __m512i d = _mm512_unpackhi_epi32(v[2], v[3]);
  v[0] = _mm512_unpacklo_epi64(a, c);
  v[1] = _mm512_unpackhi_epi64(a, c);
  v[2] = _mm512_unpacklo_epi64(b, d);
  v[3] = _mm512_unpackhi_epi64(b, d);
}

// Four pixels of 16 rows, `step` bytes apart, → one quad of columns.
inline void gather_quad(const std::uint8_t* pixels, std::int64_t step, const PixelOrder& order, std::uint8_t* quad) {
  const __m512i shuffle = _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(order.offsets)));
  __m512i v[4];
  for (int i = 0; i < 4; ++i)
    v[i] = _mm512_shuffle_epi8(load_quarters(pixels + i * step, 4 * step), shuffle);
  transpose_quarters(v);
  for (int i = 0; i < kChannels; ++i)
    _mm512_storeu_si512(quad + i * kQuadBlockBytes, v[i]);
}

// The sums of one block with each part of the weights, in 32 bits.
struct QuadSum {
  __m512i sums[3] = {_mm512_set1_epi32(1 << (kWeightBits - 1)), _mm512_setzero_si512(), _mm512_setzero_si512()};

  // Not the intrinsic: this build is for machines without it, too (see cpu/isa.h), and GCC 12 copies the sum.
  static void add_products(__m512i& sum, __m512i bytes, __m512i weights) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(bytes), "v"(weights));
  }

  void add(const std::uint8_t* block, const __m512i (&weights)[3]) {
    const __m512i bytes = _mm512_loadu_si512(block);
    add_products(sums[0], bytes, weights[0]);
    add_products(sums[1], bytes, weights[1]);
    add_products(sums[2], bytes, weights[2]);
  }

  __m512i total() const {
    const __m512i upper = _mm512_add_epi32(sums[1], _mm512_slli_epi32(sums[2], 8));
    return _mm512_srai_epi32(_mm512_add_epi32(sums[0], _mm512_slli_epi32(upper, 8)), kWeightBits);
  }
};

// clamp((2^21 + Σ_k quad_k · weight_k) >> 22) for three blocks of lanes; quads lie `stride` bytes apart. Sums are taken
// modulo 2^32, and the true one fits 32 bits. Each quarter of the result has, of each block, those of four lanes, and
// four bytes that mean nothing.
inline __m512i filter_blocks(const std::uint8_t* quads, std::int64_t stride, const QuadWeight* weights,
                             std::int64_t count) {
  QuadSum a, b, c;
  const QuadWeight* const end = weights + count;
  do {
    __m512i parts[3];
    for (int i = 0; i < 3; ++i)
      parts[i] = _mm512_set1_epi32(bits_of(weights->parts[i]));
    a.add(quads, parts);
    b.add(quads + kQuadBlockBytes, parts);
    c.add(quads + 2 * kQuadBlockBytes, parts);
    quads += stride;
  } while (++weights != end);
  const __m512i last = c.total();
  return _mm512_packus_epi16(_mm512_packs_epi32(a.total(), b.total()), _mm512_packs_epi32(last, last));
}

// One column of 16 rows → for each quad of rows its 12 bytes, and four more that mean nothing; `row_bytes` apart.
inline void filter_column(const std::uint8_t* quads, const QuadWeight* weights, std::int64_t count, std::uint8_t* out,
                          std::int64_t row_bytes) {
  const __m512i bytes = filter_blocks(quads, kQuadBytes, weights, count);
  const auto store = [&](int quad, __m128i quarter) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + quad * row_bytes), quarter);
  };
  store(0, _mm512_castsi512_si128(bytes));
  store(1, _mm512_extracti32x4_epi32(bytes, 1));
  store(2, _mm512_extracti32x4_epi32(bytes, 2));
  store(3, _mm512_extracti32x4_epi32(bytes, 3));
}

// 48 values of a row; 16 bytes more are overwritten.
inline void filter_row(const std::uint8_t* quads, std::int64_t stride, const QuadWeight* weights, std::int64_t count,
                       std::uint8_t* out) {
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  _mm512_storeu_si512(out, _mm512_permutexvar_epi32(order, filter_blocks(quads, stride, weights, count)));
}

#else

inline void gather_quad(const std::uint8_t* pixels, std::int64_t step, const PixelOrder& order, std::uint8_t* quad) {
  for (int row = 0; row < kBlockLanes; ++row, pixels += step) {
    for (int i = 0; i < 4 * kChannels; ++i)
      quad[i / 4 * kQuadBlockBytes + 4 * row + i % 4] = pixels[order.offsets[i]];
  }
}

// clamp((2^21 + Σ_k quad_k · weight_k) >> 22) for 48 lanes; quads lie `stride` bytes apart.
inline void filter_blocks(const std::uint8_t* quads, std::int64_t stride, const QuadWeight* weights, std::int64_t count,
                          std::uint8_t* out) {
  std::uint32_t sums[kGroupValues];
  for (std::uint32_t& sum : sums)
    sum = 1 << (kWeightBits - 1);
  for (std::int64_t k = 0; k < count; ++k, quads += stride) {
    for (int lane = 0; lane < kGroupValues; ++lane) {
      for (int position = 0; position < 4; ++position) {
        const auto part = [&](int i) { return static_cast<std::int32_t>(weights[k].parts[i][position]); };
        const std::int32_t weight = part(0) + part(1) * (1 << 8) + part(2) * (1 << 16);
        sums[lane] += static_cast<std::uint32_t>(quads[4 * lane + position] * weight);
      }
    }
  }
  for (int lane = 0; lane < kGroupValues; ++lane) {
    const std::int32_t byte = static_cast<std::int32_t>(sums[lane]) >> kWeightBits;
    out[lane] = static_cast<std::uint8_t>(byte < 0 ? 0 : byte > 255 ? 255 : byte);
  }
}

inline void filter_column(const std::uint8_t* quads, const QuadWeight* weights, std::int64_t count, std::uint8_t* out,
                          std::int64_t row_bytes) {
  std::uint8_t bytes[kGroupValues];
  filter_blocks(quads, kQuadBytes, weights, count, bytes);
  for (int quad = 0; quad < kBlockLanes / 4; ++quad) {
    for (int channel = 0; channel < kChannels; ++channel)
      std::memcpy(out + quad * row_bytes + 4 * channel, bytes + channel * kBlockLanes + 4 * quad, 4);
  }
}

inline void filter_row(const std::uint8_t* quads, std::int64_t stride, const QuadWeight* weights, std::int64_t count,
                       std::uint8_t* out) {
  filter_blocks(quads, stride, weights, count, out);
}

#endif
#endif

}  // namespace
}  // namespace siglip2::SIGLIP2_ISA
