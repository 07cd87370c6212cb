// The register tile of matrix units (cpu/simd/matrix_unit.h), for code that has other work to do while it multiplies.
#pragma once

#include "cpu/simd/matrix_unit.h"
#include "cpu/simd/simd_math.h"

#if defined(SIGLIP2_MATRIX_UNIT)

namespace siglip2::SIGLIP2_ISA {

inline constexpr int kRegisterRows = 16;
inline constexpr int kRegisterWords = kRegisterRows * kLanes;
static_assert(kLanes == 16 && kTileVectors == 2);
static_assert(kMatrixUnitFormat.rows == 2 * kRegisterRows && kMatrixUnitFormat.step == kRegisterRows);

enum class Element { kPair, kQuad };

// The registers themselves. Numbers of registers are part of the instructions.
struct Registers {
  template <int kTo>
  SIGLIP2_INLINE void load(const float* source, std::int64_t stride) {
#if defined(SIGLIP2_ISA_avx512)
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(source), "r"(4 * stride), "i"(kTo) : "memory");
#endif
  }
  // As load, of what is not used again soon: it is not kept in the L1 cache.
  template <int kTo>
  SIGLIP2_INLINE void load_passing(const float* source, std::int64_t stride) {
#if defined(SIGLIP2_ISA_avx512)
    asm volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" : : "r"(source), "r"(4 * stride), "i"(kTo) : "memory");
#endif
  }
  template <int kFrom>
  SIGLIP2_INLINE void store(float* target, std::int64_t stride) {
#if defined(SIGLIP2_ISA_avx512)
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(target), "r"(4 * stride), "i"(kFrom) : "memory");
#endif
  }
  template <int kTo>
  SIGLIP2_INLINE void clear() {
#if defined(SIGLIP2_ISA_avx512)
    asm volatile("tilezero %%tmm%c0" : : "i"(kTo));
#endif
  }
  template <Element kElement, int kSum, int kRows, int kColumns>
  SIGLIP2_INLINE void multiply() {
#if defined(SIGLIP2_ISA_avx512)
    if constexpr (kElement == Element::kPair) {
      asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kRows), "i"(kColumns));
    } else {
      asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kRows), "i"(kColumns));
    }
#endif
  }
};

struct EmulatedRegisters {
  float words[8][kRegisterRows][kLanes];

  template <int kTo>
  void load(const float* source, std::int64_t stride) {
    for (int row = 0; row < kRegisterRows; ++row)
      siglip2::SIGLIP2_ISA::store(words[kTo][row], siglip2::SIGLIP2_ISA::load(source + row * stride));
  }
  template <int kTo>
  void load_passing(const float* source, std::int64_t stride) {
    load<kTo>(source, stride);
  }
  template <int kFrom>
  void store(float* target, std::int64_t stride) {
    for (int row = 0; row < kRegisterRows; ++row)
      siglip2::SIGLIP2_ISA::store(target + row * stride, siglip2::SIGLIP2_ISA::load(words[kFrom][row]));
  }
  template <int kTo>
  void clear() {
    for (auto& row : words[kTo])
      siglip2::SIGLIP2_ISA::store(row, zero());
  }
  template <Element kElement, int kSum, int kRows, int kColumns>
  void multiply() {
    for (int i = 0; i < kRegisterRows; ++i) {
      const Vec before = siglip2::SIGLIP2_ISA::load(words[kSum][i]);
      Vec first = kElement == Element::kPair ? zero() : before, second = zero();
      for (int unit = 0; unit < kLanes; ++unit) {
        const Vec row = broadcast(words[kRows][i][unit]);
        const Vec columns = siglip2::SIGLIP2_ISA::load(words[kColumns][unit]);
        if constexpr (kElement == Element::kPair) {
          first = multiply_add(first_of_pair(row), first_of_pair(columns), first);
          second = multiply_add(second_of_pair(row), second_of_pair(columns), second);
        } else {
          first = add_half_products(first, even_bytes(row), even_bytes(columns));
          first = add_half_products(first, odd_bytes(row), odd_bytes(columns));
        }
      }
      siglip2::SIGLIP2_ISA::store(words[kSum][i], kElement == Element::kPair ? before + (first + second) : first);
    }
  }
};

struct NoWork {
  SIGLIP2_INLINE void step() {}
};

// One tile of up to 16 rows, or of more if kBothHalves, with `work.step()` called after the products of every 16 units:
// the unit takes 16 cycles for each of them, in which the core's other units are free.
//
// Sums 0 and 1 are of the first 16 rows, 2 and 3 of the others; rows are in 4 and 5, columns in 6 and 7. Rows pass by
// the L1 cache, which is for the first `kept` units of the columns: the next tile has them, too. What it cannot hold of
// them passes by as well, or nothing would stay.
template <class Unit, Element kElement, bool kBothHalves, class Work>
SIGLIP2_INLINE void multiply_matrix_tile(const TileArgs& args, std::int64_t kept, Work& work) {
  Unit unit;
  const auto load_columns = [&]<int kTo>(const float* source, std::int64_t k) __attribute__((always_inline)) {
    if (k < kept) {
      unit.template load<kTo>(source, kTileColumns);
    } else {
      unit.template load_passing<kTo>(source, kTileColumns);
    }
  };
  float* const lower = args.out + kRegisterRows * args.out_stride;
  if (args.accumulate) {
    unit.template load<0>(args.out, args.out_stride);
    unit.template load<1>(args.out + kLanes, args.out_stride);
    if constexpr (kBothHalves) {
      unit.template load<2>(lower, args.out_stride);
      unit.template load<3>(lower + kLanes, args.out_stride);
    }
  } else {
    unit.template clear<0>();
    unit.template clear<1>();
    if constexpr (kBothHalves) {
      unit.template clear<2>();
      unit.template clear<3>();
    }
  }
  const float* a = args.a;
  const float* b = args.b;
  for (std::int64_t k = 0; k < args.count; k += kLanes, a += 2 * kRegisterWords, b += kLanes * kTileColumns) {
    // All loads before the products, so that the next ones wait for as few of them as can be.
    load_columns.template operator()<6>(b, k);
    unit.template load_passing<4>(a, kLanes);
    if constexpr (kBothHalves) unit.template load_passing<5>(a + kRegisterWords, kLanes);
    load_columns.template operator()<7>(b + kLanes, k);
    unit.template multiply<kElement, 0, 4, 6>();
    if constexpr (kBothHalves) unit.template multiply<kElement, 2, 5, 6>();
    unit.template multiply<kElement, 1, 4, 7>();
    if constexpr (kBothHalves) unit.template multiply<kElement, 3, 5, 7>();
    work.step();
  }
  unit.template store<0>(args.out, args.out_stride);
  unit.template store<1>(args.out + kLanes, args.out_stride);
  if constexpr (kBothHalves) {
    unit.template store<2>(lower, args.out_stride);
    unit.template store<3>(lower + kLanes, args.out_stride);
  }
}

}  // namespace siglip2::SIGLIP2_ISA

#endif
