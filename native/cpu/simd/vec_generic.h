// Portable vectors: the vector types of GCC and Clang, which each architecture's compiler maps to the registers it has
// (SSE2, NEON …), with as many as it takes for wider ones. Four lanes, or sixteen in the build "wide16". Included by
// cpu/simd/simd.h.
#pragma once

namespace siglip2::SIGLIP2_ISA {

#if defined(SIGLIP2_ISA_wide16)
inline constexpr int kLanes = 16;
inline constexpr int kTileRows = 14;  // as AVX-512, whose code paths this build tests
inline constexpr int kTileVectors = 2;
inline constexpr int kTileSteps = 1;
#else
inline constexpr int kLanes = 4;
inline constexpr int kTileRows = 4;  // 8 sums, 2 columns, a broadcast and a product of 16 registers
inline constexpr int kTileVectors = 2;
inline constexpr int kTileSteps = 4;
#endif

// Alignment of the narrowest registers, so that no ABI has an opinion on passing the wide ones.
using FloatLanes = float __attribute__((vector_size(4 * kLanes), aligned(16)));
using IntLanes = std::int32_t __attribute__((vector_size(4 * kLanes)));
using DoubleLanes = double __attribute__((vector_size(8 * kLanes)));
using HalfLanes = std::uint16_t __attribute__((vector_size(2 * kLanes)));
using UnsignedLanes = std::uint32_t __attribute__((vector_size(4 * kLanes)));

struct Vec {
  FloatLanes value;
};

SIGLIP2_INLINE Vec zero() {
  return {FloatLanes{}};
}
SIGLIP2_INLINE Vec broadcast(float x) {
  return {x - FloatLanes{}};
}
SIGLIP2_INLINE Vec load(const float* source) {
  Vec v;
  std::memcpy(&v.value, source, sizeof(v.value));
  return v;
}
SIGLIP2_INLINE void store(float* target, Vec v) {
  std::memcpy(target, &v.value, sizeof(v.value));
}
SIGLIP2_INLINE Vec load_first(const float* source, int count) {
  float lanes[kLanes] = {};
  for (int i = 0; i < count; ++i)
    lanes[i] = source[i];
  return load(lanes);
}
SIGLIP2_INLINE void store_first(float* target, Vec v, int count) {
  float lanes[kLanes];
  store(lanes, v);
  for (int i = 0; i < count; ++i)
    target[i] = lanes[i];
}

SIGLIP2_INLINE void load_halves(const void* source, UnsignedLanes& widened) {
  HalfLanes halves;
  std::memcpy(&halves, source, sizeof(halves));
  widened = __builtin_convertvector(halves, UnsignedLanes);
}
SIGLIP2_INLINE Vec load_bfloat16(const void* source) {
  UnsignedLanes halves;
  load_halves(source, halves);
  return {reinterpret_cast<FloatLanes>(halves << 16)};
}
SIGLIP2_INLINE Vec load_float16(const void* source) {
  UnsignedLanes halves;
  load_halves(source, halves);
  const UnsignedLanes magnitude = (halves & 0x7fffu) << 13;
  const FloatLanes sign = reinterpret_cast<FloatLanes>((halves & 0x8000u) << 16);
  // Exponent 0 holds multiples of 2⁻²⁴, exponent 31 infinities and NaN; between them only the bias differs.
  const FloatLanes subnormal =
      __builtin_convertvector(reinterpret_cast<IntLanes>(halves & 0x3ffu), FloatLanes) * 0x1p-24f;
  const FloatLanes normal = reinterpret_cast<FloatLanes>(magnitude + (112u << 23));
  const FloatLanes special = reinterpret_cast<FloatLanes>(magnitude | 0x7f800000u);
  const FloatLanes finite = (halves & 0x7c00u) == 0u ? subnormal : normal;
  const FloatLanes absolute = (halves & 0x7c00u) == 0x7c00u ? special : finite;
  return {
      reinterpret_cast<FloatLanes>(reinterpret_cast<UnsignedLanes>(absolute) | reinterpret_cast<UnsignedLanes>(sign))};
}

SIGLIP2_INLINE UnsignedLanes bits_of(Vec v) {
  return reinterpret_cast<UnsignedLanes>(v.value);
}
SIGLIP2_INLINE Vec round_to_bfloat16(Vec v) {
  const UnsignedLanes bits = bits_of(v);
  const UnsignedLanes rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  const UnsignedLanes kept = v.value == v.value ? rounded : bits | 0x400000u;
  return {reinterpret_cast<FloatLanes>(kept & 0xffff0000u)};
}
SIGLIP2_INLINE void store_bfloat16(void* target, Vec v) {
  const HalfLanes halves = __builtin_convertvector(bits_of(round_to_bfloat16(v)) >> 16, HalfLanes);
  std::memcpy(target, &halves, sizeof(halves));
}
SIGLIP2_INLINE Vec join_pair(Vec a, Vec b) {
  return {reinterpret_cast<FloatLanes>((bits_of(a) >> 16) | bits_of(b))};
}
SIGLIP2_INLINE Vec first_of_pair(Vec v) {
  return {reinterpret_cast<FloatLanes>(bits_of(v) << 16)};
}
SIGLIP2_INLINE Vec second_of_pair(Vec v) {
  return {reinterpret_cast<FloatLanes>(bits_of(v) & 0xffff0000u)};
}

SIGLIP2_INLINE Vec from_bits(UnsignedLanes bits) {
  return {reinterpret_cast<FloatLanes>(bits)};
}
SIGLIP2_INLINE IntLanes ints_of(Vec v) {
  return reinterpret_cast<IntLanes>(v.value);
}
SIGLIP2_INLINE Vec join_bytes(Vec a, Vec b, Vec c, Vec d) {
  return from_bits((bits_of(a) & 0xffu) | (bits_of(b) & 0xffu) << 8 | (bits_of(c) & 0xffu) << 16 | bits_of(d) << 24);
}
SIGLIP2_INLINE Vec join_halves(Vec a, Vec b) {
  return from_bits((bits_of(a) & 0xffffu) | bits_of(b) << 16);
}
SIGLIP2_INLINE Vec flip_bytes(Vec v) {
  return from_bits(bits_of(v) ^ 0x80808080u);
}
SIGLIP2_INLINE Vec even_bytes(Vec v) {
  const IntLanes lower = ints_of(from_bits(bits_of(v) << 24)) >> 24;
  const IntLanes upper = ints_of(from_bits(bits_of(v) << 8)) >> 24;
  return join_halves({reinterpret_cast<FloatLanes>(lower)}, {reinterpret_cast<FloatLanes>(upper)});
}
SIGLIP2_INLINE Vec odd_bytes(Vec v) {
  return even_bytes(from_bits(bits_of(v) >> 8));
}
SIGLIP2_INLINE Vec add_half_products(Vec sum, Vec a, Vec b) {
  const IntLanes lower = (ints_of(from_bits(bits_of(a) << 16)) >> 16) * (ints_of(from_bits(bits_of(b) << 16)) >> 16);
  const IntLanes upper = (ints_of(a) >> 16) * (ints_of(b) >> 16);
  return {reinterpret_cast<FloatLanes>(ints_of(sum) + lower + upper)};
}
SIGLIP2_INLINE Vec int_to_float(Vec v) {
  return {__builtin_convertvector(ints_of(v), FloatLanes)};
}
SIGLIP2_INLINE Vec subtract_int(Vec a, Vec b) {
  return from_bits(bits_of(a) - bits_of(b));
}

SIGLIP2_INLINE Vec operator+(Vec a, Vec b) {
  return {a.value + b.value};
}
SIGLIP2_INLINE Vec operator-(Vec a, Vec b) {
  return {a.value - b.value};
}
SIGLIP2_INLINE Vec operator*(Vec a, Vec b) {
  return {a.value * b.value};
}
SIGLIP2_INLINE Vec operator/(Vec a, Vec b) {
  return {a.value / b.value};
}
SIGLIP2_INLINE Vec reciprocal(Vec v) {
  return broadcast(1.0f) / v;
}
SIGLIP2_INLINE Vec sqrt(Vec v) {
  for (int i = 0; i < kLanes; ++i)
    v.value[i] = __builtin_sqrtf(v.value[i]);
  return v;
}
#if defined(__FP_FAST_FMAF) || defined(__ARM_FEATURE_FMA)
SIGLIP2_INLINE Vec fused_multiply_add(Vec a, Vec b, Vec c) {
  for (int i = 0; i < kLanes; ++i)
    a.value[i] = __builtin_fmaf(a.value[i], b.value[i], c.value[i]);
  return a;
}
SIGLIP2_INLINE Vec multiply_add(Vec a, Vec b, Vec c) {
  return fused_multiply_add(a, b, c);
}
#else
SIGLIP2_INLINE Vec multiply_add(Vec a, Vec b, Vec c) {
  return {a.value * b.value + c.value};
}
SIGLIP2_INLINE Vec fused_multiply_add(Vec a, Vec b, Vec c) {
  // The product of two float32 is exact in double precision.
  const DoubleLanes sum =
      __builtin_convertvector(a.value, DoubleLanes) * __builtin_convertvector(b.value, DoubleLanes) +
      __builtin_convertvector(c.value, DoubleLanes);
  return {__builtin_convertvector(sum, FloatLanes)};
}
#endif
SIGLIP2_INLINE Vec max(Vec a, Vec b) {
  return {a.value > b.value ? a.value : b.value};
}
SIGLIP2_INLINE Vec min(Vec a, Vec b) {
  return {a.value < b.value ? a.value : b.value};
}

SIGLIP2_INLINE Vec select_first(int count, Vec a, Vec b) {
  for (int i = 0; i < kLanes; ++i)
    b.value[i] = i < count ? a.value[i] : b.value[i];
  return b;
}
SIGLIP2_INLINE Vec select_negative(Vec x, Vec a, Vec b) {
  return {x.value < FloatLanes{} ? a.value : b.value};
}
SIGLIP2_INLINE Vec power_of_two_bits(Vec v) {
  return {reinterpret_cast<FloatLanes>(reinterpret_cast<UnsignedLanes>(v.value) << 23)};
}

SIGLIP2_INLINE float reduce_add(Vec v) {
  float lanes[kLanes];
  store(lanes, v);
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i)
      lanes[i] += lanes[i + width];
  }
  return lanes[0];
}

inline void transpose(Vec (&rows)[kLanes]) {
  float lanes[kLanes][kLanes];
  for (int i = 0; i < kLanes; ++i)
    store(lanes[i], rows[i]);
  for (int i = 0; i < kLanes; ++i) {
    for (int j = 0; j < kLanes; ++j)
      rows[i].value[j] = lanes[j][i];
  }
}

}  // namespace siglip2::SIGLIP2_ISA
