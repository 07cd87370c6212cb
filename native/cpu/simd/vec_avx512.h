// AVX-512 F, BW, VL and DQ: sixteen lanes. Included by cpu/simd/simd.h.
#pragma once

#include <immintrin.h>

namespace siglip2::SIGLIP2_ISA {

inline constexpr int kLanes = 16;
inline constexpr int kTileRows = 14;  // 28 sums, 2 columns and a broadcast of 32 registers
inline constexpr int kTileVectors = 2;
inline constexpr int kTileSteps = 2;

struct Vec {
  __m512 value;
};

// The forms without a mask start from an undefined register, which GCC 12 warns about.
inline constexpr __mmask16 kAllLanes = 0xffff;

SIGLIP2_INLINE __mmask16 mask_of_first(int count) {
  return static_cast<__mmask16>((1u << count) - 1u);
}

SIGLIP2_INLINE Vec zero() {
  return {_mm512_setzero_ps()};
}
SIGLIP2_INLINE Vec broadcast(float x) {
  return {_mm512_set1_ps(x)};
}
SIGLIP2_INLINE Vec load(const float* source) {
  return {_mm512_loadu_ps(source)};
}
SIGLIP2_INLINE void store(float* target, Vec v) {
  _mm512_storeu_ps(target, v.value);
}
SIGLIP2_INLINE Vec load_first(const float* source, int count) {
  return {_mm512_maskz_loadu_ps(mask_of_first(count), source)};
}
SIGLIP2_INLINE void store_first(float* target, Vec v, int count) {
  _mm512_mask_storeu_ps(target, mask_of_first(count), v.value);
}
SIGLIP2_INLINE Vec load_bfloat16(const void* source) {
  const __m256i halves = _mm256_loadu_si256(static_cast<const __m256i*>(source));
  return {_mm512_castsi512_ps(_mm512_maskz_slli_epi32(kAllLanes, _mm512_maskz_cvtepu16_epi32(kAllLanes, halves), 16))};
}
SIGLIP2_INLINE Vec load_float16(const void* source) {
  return {_mm512_maskz_cvtph_ps(kAllLanes, _mm256_loadu_si256(static_cast<const __m256i*>(source)))};
}

SIGLIP2_INLINE __m512i bits_of(Vec v) {
  return _mm512_castps_si512(v.value);
}
SIGLIP2_INLINE Vec round_to_bfloat16(Vec v) {
  const __m512i bits = bits_of(v);
  const __m512i odd = _mm512_and_si512(_mm512_maskz_srli_epi32(kAllLanes, bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __m512i kept = _mm512_mask_blend_epi32(_mm512_cmp_ps_mask(v.value, v.value, _CMP_UNORD_Q), rounded, quiet);
  return {_mm512_castsi512_ps(_mm512_and_si512(kept, _mm512_set1_epi32(-65536)))};
}
SIGLIP2_INLINE void store_bfloat16(void* target, Vec v) {
  const __m512i halves = _mm512_maskz_srli_epi32(kAllLanes, bits_of(round_to_bfloat16(v)), 16);
  _mm256_storeu_si256(static_cast<__m256i*>(target), _mm512_maskz_cvtepi32_epi16(kAllLanes, halves));
}
SIGLIP2_INLINE Vec join_pair(Vec a, Vec b) {
  return {_mm512_castsi512_ps(_mm512_or_si512(_mm512_maskz_srli_epi32(kAllLanes, bits_of(a), 16), bits_of(b)))};
}
SIGLIP2_INLINE Vec first_of_pair(Vec v) {
  return {_mm512_castsi512_ps(_mm512_maskz_slli_epi32(kAllLanes, bits_of(v), 16))};
}
SIGLIP2_INLINE Vec second_of_pair(Vec v) {
  return {_mm512_castsi512_ps(_mm512_and_si512(bits_of(v), _mm512_set1_epi32(-65536)))};
}

SIGLIP2_INLINE Vec from_bits(__m512i bits) {
  return {_mm512_castsi512_ps(bits)};
}
SIGLIP2_INLINE Vec join_bytes(Vec a, Vec b, Vec c, Vec d) {
  const __m512i byte = _mm512_set1_epi32(0xff);
  const __m512i lower = _mm512_or_si512(_mm512_and_si512(bits_of(a), byte),
                                        _mm512_maskz_slli_epi32(kAllLanes, _mm512_and_si512(bits_of(b), byte), 8));
  const __m512i upper = _mm512_or_si512(_mm512_maskz_slli_epi32(kAllLanes, _mm512_and_si512(bits_of(c), byte), 16),
                                        _mm512_maskz_slli_epi32(kAllLanes, bits_of(d), 24));
  return from_bits(_mm512_or_si512(lower, upper));
}
SIGLIP2_INLINE Vec join_halves(Vec a, Vec b) {
  return from_bits(_mm512_or_si512(_mm512_and_si512(bits_of(a), _mm512_set1_epi32(0xffff)),
                                   _mm512_maskz_slli_epi32(kAllLanes, bits_of(b), 16)));
}
SIGLIP2_INLINE Vec flip_bytes(Vec v) {
  return from_bits(_mm512_xor_si512(bits_of(v), _mm512_set1_epi8(-128)));
}
SIGLIP2_INLINE Vec even_bytes(Vec v) {
  return from_bits(_mm512_srai_epi16(_mm512_slli_epi16(bits_of(v), 8), 8));
}
SIGLIP2_INLINE Vec odd_bytes(Vec v) {
  return from_bits(_mm512_srai_epi16(bits_of(v), 8));
}
SIGLIP2_INLINE Vec add_half_products(Vec sum, Vec a, Vec b) {
  return from_bits(_mm512_add_epi32(bits_of(sum), _mm512_madd_epi16(bits_of(a), bits_of(b))));
}
SIGLIP2_INLINE Vec int_to_float(Vec v) {
  return {_mm512_maskz_cvtepi32_ps(kAllLanes, bits_of(v))};
}
SIGLIP2_INLINE Vec subtract_int(Vec a, Vec b) {
  return from_bits(_mm512_sub_epi32(bits_of(a), bits_of(b)));
}

SIGLIP2_INLINE Vec operator+(Vec a, Vec b) {
  return {_mm512_add_ps(a.value, b.value)};
}
SIGLIP2_INLINE Vec operator-(Vec a, Vec b) {
  return {_mm512_sub_ps(a.value, b.value)};
}
SIGLIP2_INLINE Vec operator*(Vec a, Vec b) {
  return {_mm512_mul_ps(a.value, b.value)};
}
SIGLIP2_INLINE Vec operator/(Vec a, Vec b) {
  return {_mm512_div_ps(a.value, b.value)};
}
// A division takes 16 cycles.
SIGLIP2_INLINE Vec reciprocal(Vec v) {
  const __m512 guess = _mm512_maskz_rcp14_ps(kAllLanes, v.value);
  return {_mm512_mul_ps(guess, _mm512_fnmadd_ps(v.value, guess, _mm512_set1_ps(2.0f)))};
}
SIGLIP2_INLINE Vec sqrt(Vec v) {
  return {_mm512_maskz_sqrt_ps(kAllLanes, v.value)};
}
SIGLIP2_INLINE Vec multiply_add(Vec a, Vec b, Vec c) {
  return {_mm512_fmadd_ps(a.value, b.value, c.value)};
}
SIGLIP2_INLINE Vec fused_multiply_add(Vec a, Vec b, Vec c) {
  return multiply_add(a, b, c);
}
SIGLIP2_INLINE Vec max(Vec a, Vec b) {
  return {_mm512_maskz_max_ps(kAllLanes, a.value, b.value)};
}
SIGLIP2_INLINE Vec min(Vec a, Vec b) {
  return {_mm512_maskz_min_ps(kAllLanes, a.value, b.value)};
}

SIGLIP2_INLINE Vec select_first(int count, Vec a, Vec b) {
  return {_mm512_mask_blend_ps(mask_of_first(count), b.value, a.value)};
}
SIGLIP2_INLINE Vec select_negative(Vec x, Vec a, Vec b) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(x.value, _mm512_setzero_ps(), _CMP_LT_OQ), b.value, a.value)};
}
SIGLIP2_INLINE Vec power_of_two_bits(Vec v) {
  return {_mm512_castsi512_ps(_mm512_maskz_slli_epi32(kAllLanes, _mm512_castps_si512(v.value), 23))};
}

SIGLIP2_INLINE float reduce_add(Vec v) {
  float lanes[kLanes];
  store(lanes, v);
  const __m256 half = _mm256_add_ps(_mm256_loadu_ps(lanes), _mm256_loadu_ps(lanes + 8));
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

SIGLIP2_INLINE void transpose(Vec (&rows)[kLanes]) {
  __m512 pairs[16], fours[16], halves[16];
  // Interleave rows two by two, then four by four, within quarters; then exchange quarters.
  SIGLIP2_UNROLL for (int i = 0; i < 8; ++i) {
    pairs[2 * i] = _mm512_maskz_unpacklo_ps(kAllLanes, rows[2 * i].value, rows[2 * i + 1].value);
    pairs[2 * i + 1] = _mm512_maskz_unpackhi_ps(kAllLanes, rows[2 * i].value, rows[2 * i + 1].value);
  }
  SIGLIP2_UNROLL for (int i = 0; i < 16; i += 4) {
    fours[i] = _mm512_maskz_shuffle_ps(kAllLanes, pairs[i], pairs[i + 2], 0x44);
    fours[i + 1] = _mm512_maskz_shuffle_ps(kAllLanes, pairs[i], pairs[i + 2], 0xee);
    fours[i + 2] = _mm512_maskz_shuffle_ps(kAllLanes, pairs[i + 1], pairs[i + 3], 0x44);
    fours[i + 3] = _mm512_maskz_shuffle_ps(kAllLanes, pairs[i + 1], pairs[i + 3], 0xee);
  }
  // fours[4r + c] holds, in quarter q, column 4q + c of rows 4r … 4r + 3.
  SIGLIP2_UNROLL for (int c = 0; c < 4; ++c) {
    halves[c] = _mm512_maskz_shuffle_f32x4(kAllLanes, fours[c], fours[c + 4], 0x88);
    halves[c + 4] = _mm512_maskz_shuffle_f32x4(kAllLanes, fours[c], fours[c + 4], 0xdd);
    halves[c + 8] = _mm512_maskz_shuffle_f32x4(kAllLanes, fours[c + 8], fours[c + 12], 0x88);
    halves[c + 12] = _mm512_maskz_shuffle_f32x4(kAllLanes, fours[c + 8], fours[c + 12], 0xdd);
  }
  SIGLIP2_UNROLL for (int c = 0; c < 4; ++c) {
    rows[c].value = _mm512_maskz_shuffle_f32x4(kAllLanes, halves[c], halves[c + 8], 0x88);
    rows[c + 8].value = _mm512_maskz_shuffle_f32x4(kAllLanes, halves[c], halves[c + 8], 0xdd);
    rows[c + 4].value = _mm512_maskz_shuffle_f32x4(kAllLanes, halves[c + 4], halves[c + 12], 0x88);
    rows[c + 12].value = _mm512_maskz_shuffle_f32x4(kAllLanes, halves[c + 4], halves[c + 12], 0xdd);
  }
}

}  // namespace siglip2::SIGLIP2_ISA
