#include "cpu/simd/matrix_unit.h"

namespace siglip2::SIGLIP2_ISA {
namespace {

bool in_use = false;

}  // namespace

void prepare_matrix_unit(cpu::ProductMethod method) {
  if (method == cpu::ProductMethod::kMatrixUnit) in_use = true;
}

MatrixUnitScope::MatrixUnitScope(bool wanted) : configured_(wanted && in_use) {
#if defined(SIGLIP2_ISA_avx512)
  struct alignas(64) Configuration {
    std::uint8_t palette = 1;
    std::uint8_t start_row = 0;
    std::uint8_t reserved[14] = {};
    std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  };
  static_assert(sizeof(Configuration) == 64);
  const Configuration configuration;
  if (configured_) asm volatile("ldtilecfg %0" : : "m"(configuration));
#endif
}

MatrixUnitScope::~MatrixUnitScope() {
#if defined(SIGLIP2_ISA_avx512)
  if (configured_) asm volatile("tilerelease");
#endif
}

#if defined(SIGLIP2_MATRIX_UNIT)
namespace {

constexpr int kRegisterRows = 16;
constexpr int kRegisterWords = kRegisterRows * kLanes;
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

// Sums 0 and 1 are of the first 16 rows, 2 and 3 of the others; rows are in 4 and 5, columns in 6 and 7.
template <class Unit, Element kElement, bool kBothHalves>
void multiply_tile(const TileArgs& args) {
  Unit unit;
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
    unit.template load<6>(b, kTileColumns);
    unit.template load<4>(a, kLanes);
    unit.template load<7>(b + kLanes, kTileColumns);
    unit.template multiply<kElement, 0, 4, 6>();
    unit.template multiply<kElement, 1, 4, 7>();
    if constexpr (kBothHalves) {
      unit.template load<5>(a + kRegisterWords, kLanes);
      unit.template multiply<kElement, 2, 5, 6>();
      unit.template multiply<kElement, 3, 5, 7>();
    }
  }
  unit.template store<0>(args.out, args.out_stride);
  unit.template store<1>(args.out + kLanes, args.out_stride);
  if constexpr (kBothHalves) {
    unit.template store<2>(lower, args.out_stride);
    unit.template store<3>(lower + kLanes, args.out_stride);
  }
}

template <Element kElement>
void multiply(bool emulated, int rows, const TileArgs& args) {
  if (emulated) {
    rows > kRegisterRows ? multiply_tile<EmulatedRegisters, kElement, true>(args)
                         : multiply_tile<EmulatedRegisters, kElement, false>(args);
  } else {
    rows > kRegisterRows ? multiply_tile<Registers, kElement, true>(args)
                         : multiply_tile<Registers, kElement, false>(args);
  }
}

// The words of one row of a register: 32 values of bfloat16 or 64 integers, of which the first `count` are there.
#if defined(SIGLIP2_ISA_avx512)
#define SIGLIP2_TARGET_PAIRS __attribute__((target("avx512bf16")))
SIGLIP2_TARGET_PAIRS inline void join_row(const float* source, int count, float* words) {
  const Vec low = load_first(source, count < kLanes ? count : kLanes);
  const Vec high = count > kLanes ? load_first(source + kLanes, count - kLanes) : zero();
  _mm512_storeu_ps(words, reinterpret_cast<__m512>(_mm512_cvtne2ps_pbh(high.value, low.value)));
}
SIGLIP2_INLINE void quantize_row(const float* source, int count, Vec inverse, float* words) {
  SIGLIP2_UNROLL for (int part = 0; part < 4; ++part) {
    const int left = count - part * kLanes;
    const Vec x = left >= kLanes ? load(source + part * kLanes)
                  : left > 0     ? load_first(source + part * kLanes, left)
                                 : zero();
    const __m128i bytes = _mm512_cvtepi32_epi8(bits_of(rounded_bits(x * inverse)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(words + 4 * part), bytes);
  }
}
#else
#define SIGLIP2_TARGET_PAIRS
inline void join_row(const float* source, int count, float* words) {
  float values[2 * kLanes] = {};
  std::memcpy(values, source, static_cast<std::size_t>(count) * sizeof(float));
  std::uint16_t halves[2 * kLanes];
  for (int part = 0; part < 2 * kLanes; part += kLanes) {
    std::uint32_t bits[kLanes];
    float rounded[kLanes];
    store(rounded, round_to_bfloat16(load(values + part)));
    std::memcpy(bits, rounded, sizeof(bits));
    for (int i = 0; i < kLanes; ++i)
      halves[part + i] = static_cast<std::uint16_t>(bits[i] >> 16);
  }
  std::memcpy(words, halves, sizeof(halves));
}
inline void quantize_row(const float* source, int count, Vec inverse, float* words) {
  float values[4 * kLanes] = {};
  std::memcpy(values, source, static_cast<std::size_t>(count) * sizeof(float));
  std::uint8_t bytes[4 * kLanes];
  for (int part = 0; part < 4 * kLanes; part += kLanes) {
    std::uint32_t bits[kLanes];
    float rounded[kLanes];
    store(rounded, rounded_bits(load(values + part) * inverse));
    std::memcpy(bits, rounded, sizeof(bits));
    for (int i = 0; i < kLanes; ++i)
      bytes[part + i] = static_cast<std::uint8_t>(bits[i]);
  }
  std::memcpy(words, bytes, sizeof(bytes));
}
#endif

// Calls pack_row(row, first value, values, words) for every row of every register. Four registers at a time: rows are
// read in pieces that the machine can foresee, and written to few places at once.
template <int kRegisterValues, typename PackRow>
SIGLIP2_INLINE void pack_registers(std::int64_t rows, std::int64_t count, float* panels, const PackRow& pack_row) {
  constexpr std::int64_t kValues = kRegisterValues;
  const std::int64_t steps = (count + kValues - 1) / kValues;
  for (std::int64_t tile = 0; tile < rows; tile += kMatrixUnitFormat.rows) {
    const std::int64_t tile_rows = rows - tile < kMatrixUnitFormat.rows ? rows - tile : kMatrixUnitFormat.rows;
    float* const panel = panels + tile * steps * kLanes;
    for (std::int64_t first = 0; first < steps; first += 4) {
      const std::int64_t end = first + 4 < steps ? first + 4 : steps;
      for (std::int64_t row = 0; row < tile_rows; ++row) {
        for (std::int64_t step = first; step < end; ++step) {
          const std::int64_t left = count - step * kValues;
          pack_row(tile + row, step * kValues, static_cast<int>(left < kValues ? left : kValues),
                   panel + (step * kMatrixUnitFormat.rows + row) * kLanes);
        }
      }
    }
  }
}

}  // namespace

void multiply_matrix_pairs(bool emulated, int rows, const TileArgs& args) {
  multiply<Element::kPair>(emulated, rows, args);
}

void multiply_matrix_quads(bool emulated, int rows, const TileArgs& args) {
  multiply<Element::kQuad>(emulated, rows, args);
}

SIGLIP2_TARGET_PAIRS void pack_matrix_pairs(const float* source, std::int64_t stride, std::int64_t rows,
                                            std::int64_t count, float* panels) {
  pack_registers<2 * kLanes>(rows, count, panels,
                             [&](std::int64_t row, std::int64_t first, int values, float* words)
                                 SIGLIP2_TARGET_PAIRS { join_row(source + row * stride + first, values, words); });
}

void pack_matrix_quads(const float* source, std::int64_t stride, std::int64_t rows, std::int64_t count,
                       const float* inverses, float* panels) {
  pack_registers<4 * kLanes>(rows, count, panels, [&](std::int64_t row, std::int64_t first, int values, float* words) {
    quantize_row(source + row * stride + first, values, broadcast(inverses[row]), words);
  });
}

#endif

}  // namespace siglip2::SIGLIP2_ISA
