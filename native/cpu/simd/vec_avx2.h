// AVX2 with FMA and F16C: eight lanes. Included by cpu/simd/simd.h.
#pragma once

#include <immintrin.h>

namespace siglip2::SIGLIP2_ISA {

inline constexpr int kLanes = 8;
inline constexpr int kTileRows = 6;  // 12 sums, 2 columns and a broadcast of 16 registers
inline constexpr int kTileVectors = 2;
inline constexpr int kTileSteps = 4;

struct Vec {
  __m256 value;
};

SIGLIP2_INLINE __m256i mask_of_first(int count) {
  alignas(32) static constexpr std::int32_t kMasks[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kMasks + 8 - count));
}

SIGLIP2_INLINE Vec zero() {
  return {_mm256_setzero_ps()};
}
SIGLIP2_INLINE Vec broadcast(float x) {
  return {_mm256_set1_ps(x)};
}
SIGLIP2_INLINE Vec load(const float* source) {
  return {_mm256_loadu_ps(source)};
}
SIGLIP2_INLINE void store(float* target, Vec v) {
  _mm256_storeu_ps(target, v.value);
}
SIGLIP2_INLINE Vec load_first(const float* source, int count) {
  return {_mm256_maskload_ps(source, mask_of_first(count))};
}
SIGLIP2_INLINE void store_first(float* target, Vec v, int count) {
  _mm256_maskstore_ps(target, mask_of_first(count), v.value);
}
SIGLIP2_INLINE Vec load_bfloat16(const void* source) {
  const __m128i halves = _mm_loadu_si128(static_cast<const __m128i*>(source));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16))};
}
SIGLIP2_INLINE Vec load_float16(const void* source) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(source)))};
}

SIGLIP2_INLINE __m256i bits_of(Vec v) {
  return _mm256_castps_si256(v.value);
}
SIGLIP2_INLINE Vec round_to_bfloat16(Vec v) {
  const __m256i bits = bits_of(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256 kept = _mm256_blendv_ps(_mm256_castsi256_ps(rounded), _mm256_castsi256_ps(quiet),
                                       _mm256_cmp_ps(v.value, v.value, _CMP_UNORD_Q));
  return {_mm256_and_ps(kept, _mm256_castsi256_ps(_mm256_set1_epi32(-65536)))};
}
SIGLIP2_INLINE void store_bfloat16(void* target, Vec v) {
  const __m256i halves = _mm256_srli_epi32(bits_of(round_to_bfloat16(v)), 16);
  const __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
  _mm_storeu_si128(static_cast<__m128i*>(target), packed);
}
SIGLIP2_INLINE Vec join_pair(Vec a, Vec b) {
  return {_mm256_castsi256_ps(_mm256_or_si256(_mm256_srli_epi32(bits_of(a), 16), bits_of(b)))};
}
SIGLIP2_INLINE Vec first_of_pair(Vec v) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(bits_of(v), 16))};
}
SIGLIP2_INLINE Vec second_of_pair(Vec v) {
  alignas(32) static constexpr std::int32_t kUpperHalves[8] = {-65536, -65536, -65536, -65536,
                                                               -65536, -65536, -65536, -65536};
  // Read where it is used: in a register it would drive a sum of the register tile to memory.
  const std::int32_t* mask = kUpperHalves;
  asm volatile("" : "+r"(mask));
  return {_mm256_and_ps(v.value, _mm256_load_ps(reinterpret_cast<const float*>(mask)))};
}

SIGLIP2_INLINE Vec from_bits(__m256i bits) {
  return {_mm256_castsi256_ps(bits)};
}
SIGLIP2_INLINE Vec join_bytes(Vec a, Vec b, Vec c, Vec d) {
  const __m256i byte = _mm256_set1_epi32(0xff);
  const __m256i lower =
      _mm256_or_si256(_mm256_and_si256(bits_of(a), byte), _mm256_slli_epi32(_mm256_and_si256(bits_of(b), byte), 8));
  const __m256i upper =
      _mm256_or_si256(_mm256_slli_epi32(_mm256_and_si256(bits_of(c), byte), 16), _mm256_slli_epi32(bits_of(d), 24));
  return from_bits(_mm256_or_si256(lower, upper));
}
SIGLIP2_INLINE Vec join_halves(Vec a, Vec b) {
  return from_bits(
      _mm256_or_si256(_mm256_and_si256(bits_of(a), _mm256_set1_epi32(0xffff)), _mm256_slli_epi32(bits_of(b), 16)));
}
SIGLIP2_INLINE Vec flip_bytes(Vec v) {
  return from_bits(_mm256_xor_si256(bits_of(v), _mm256_set1_epi8(-128)));
}
SIGLIP2_INLINE Vec even_bytes(Vec v) {
  return from_bits(_mm256_srai_epi16(_mm256_slli_epi16(bits_of(v), 8), 8));
}
SIGLIP2_INLINE Vec odd_bytes(Vec v) {
  return from_bits(_mm256_srai_epi16(bits_of(v), 8));
}
SIGLIP2_INLINE Vec add_half_products(Vec sum, Vec a, Vec b) {
  return from_bits(_mm256_add_epi32(bits_of(sum), _mm256_madd_epi16(bits_of(a), bits_of(b))));
}
SIGLIP2_INLINE Vec int_to_float(Vec v) {
  return {_mm256_cvtepi32_ps(bits_of(v))};
}
SIGLIP2_INLINE Vec subtract_int(Vec a, Vec b) {
  return from_bits(_mm256_sub_epi32(bits_of(a), bits_of(b)));
}

SIGLIP2_INLINE Vec operator+(Vec a, Vec b) {
  return {_mm256_add_ps(a.value, b.value)};
}
SIGLIP2_INLINE Vec operator-(Vec a, Vec b) {
  return {_mm256_sub_ps(a.value, b.value)};
}
SIGLIP2_INLINE Vec operator*(Vec a, Vec b) {
  return {_mm256_mul_ps(a.value, b.value)};
}
SIGLIP2_INLINE Vec operator/(Vec a, Vec b) {
  return {_mm256_div_ps(a.value, b.value)};
}
SIGLIP2_INLINE Vec reciprocal(Vec v) {
  return broadcast(1.0f) / v;
}
SIGLIP2_INLINE Vec sqrt(Vec v) {
  return {_mm256_sqrt_ps(v.value)};
}
SIGLIP2_INLINE Vec multiply_add(Vec a, Vec b, Vec c) {
  return {_mm256_fmadd_ps(a.value, b.value, c.value)};
}
SIGLIP2_INLINE Vec fused_multiply_add(Vec a, Vec b, Vec c) {
  return multiply_add(a, b, c);
}
SIGLIP2_INLINE Vec max(Vec a, Vec b) {
  return {_mm256_max_ps(a.value, b.value)};
}
SIGLIP2_INLINE Vec min(Vec a, Vec b) {
  return {_mm256_min_ps(a.value, b.value)};
}

SIGLIP2_INLINE Vec select_first(int count, Vec a, Vec b) {
  return {_mm256_blendv_ps(b.value, a.value, _mm256_castsi256_ps(mask_of_first(count)))};
}
SIGLIP2_INLINE Vec select_negative(Vec x, Vec a, Vec b) {
  return {_mm256_blendv_ps(b.value, a.value, _mm256_cmp_ps(x.value, _mm256_setzero_ps(), _CMP_LT_OQ))};
}
SIGLIP2_INLINE Vec power_of_two_bits(Vec v) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(v.value), 23))};
}

SIGLIP2_INLINE float reduce_add(Vec v) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(v.value), _mm256_extractf128_ps(v.value, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

SIGLIP2_INLINE void transpose(Vec (&rows)[kLanes]) {
  __m256 pairs[8], fours[8];
  // Interleave rows two by two, then four by four, within halves; then exchange halves.
  SIGLIP2_UNROLL for (int i = 0; i < 4; ++i) {
    pairs[2 * i] = _mm256_unpacklo_ps(rows[2 * i].value, rows[2 * i + 1].value);
    pairs[2 * i + 1] = _mm256_unpackhi_ps(rows[2 * i].value, rows[2 * i + 1].value);
  }
  SIGLIP2_UNROLL for (int i = 0; i < 8; i += 4) {
    fours[i] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
    fours[i + 1] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0xee);
    fours[i + 2] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
    fours[i + 3] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xee);
  }
  SIGLIP2_UNROLL for (int i = 0; i < 4; ++i) {
    rows[i].value = _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x20);
    rows[i + 4].value = _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x31);
  }
}

}  // namespace siglip2::SIGLIP2_ISA
