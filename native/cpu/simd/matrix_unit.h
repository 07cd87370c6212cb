// The matrix unit of x64 processors (AMX) as a register tile (cpu/simd/tile.h) of 32 rows and 32 columns, for bfloat16
// and 8-bit integers.
//
// AMX has eight registers of 16 rows of 64 bytes. tdpbf16ps and tdpbssd add the product of 16 rows of 16 units (32
// bits: a pair of bfloat16 numbers, a quad of integers) and 16 units of 16 columns to 16 × 16 sums. Four registers hold
// the sums, two the rows and two the columns: four loads of 1 KiB for four products, each of which takes 16 cycles.
//
//   rows     [⌈rows/32⌉][units/16][2][16 rows][16 units]: one register after the other
//   columns  the panels of the other tiles, [units][kTileColumns], of which a register is a half of 16 rows
//
// Numbers of units are multiples of 16, with zeros behind the last value of both operands. Sums: of the 16 pairs that
// one instruction multiplies, first and second products are summed apart, in order, then together, and this is added to
// what was there (Intel's manual, TDPBF16PS); subnormal numbers are 0. Sums of integers are exact.
//
// The emulated unit does the same without the instructions, so that everything around them is tested anywhere.
#pragma once

#include "cpu/product_method.h"
#include "cpu/simd/operand.h"
#include "cpu/simd/row_words.h"
#include "cpu/simd/tile.h"

// Builds whose vectors are as wide as a unit's sums.
#if defined(SIGLIP2_ISA_avx512) || defined(SIGLIP2_ISA_wide16)
#define SIGLIP2_MATRIX_UNIT 1
#endif

namespace siglip2::SIGLIP2_ISA {

// A block of a panel is long, so that sums seldom leave the registers to come back: 8 KiB to and from memory for every
// block of a tile. Of its units the first 288, 36 KiB, stay in the L1 cache while rows stream from L2; the others
// stream with the rows.
inline constexpr std::int64_t kKeptUnits = 288;
inline constexpr TileFormat kMatrixUnitFormat = {32, 1, 16, 576};

SIGLIP2_INLINE bool uses_matrix_unit(cpu::ProductMethod method) {
  return method == cpu::ProductMethod::kMatrixUnit || method == cpu::ProductMethod::kEmulatedMatrixUnit;
}

// While one lives the calling thread may use the matrix unit's registers, if it is `wanted` and products of this build
// are made by it. Short: registers in use make switches between threads dearer.
class MatrixUnitScope {
 public:
  explicit MatrixUnitScope(bool wanted);
  ~MatrixUnitScope();
  MatrixUnitScope(const MatrixUnitScope&) = delete;
  MatrixUnitScope& operator=(const MatrixUnitScope&) = delete;

 private:
  const bool configured_;
};

// Says that products of this build are made by `method`; before anything else is called.
void prepare_matrix_unit(cpu::ProductMethod method);

#if defined(SIGLIP2_MATRIX_UNIT)

// `rows` is from 1 to 32; `count` of the arguments is a multiple of 16.
void multiply_matrix_pairs(bool emulated, int rows, const TileArgs& args);
void multiply_matrix_quads(bool emulated, int rows, const TileArgs& args);

// `rows` rows of `count` values, rounded to bfloat16; anything beyond the last row.
void pack_matrix_pairs(const Operand& source, std::int64_t rows, std::int64_t count, float* panels);
// One row of such a register: 32 values, the first 16 of which are in `first`.
SIGLIP2_INLINE void store_pair_words(Vec first, Vec second, float* words) {
#if defined(SIGLIP2_ISA_avx512)
  store(words, round_halves(first, second));
#else
  const Vec halves[] = {round_to_bfloat16(first), round_to_bfloat16(second)};
  for (int v = 0; v < 2; ++v) {
    std::uint32_t bits[kLanes];
    std::uint16_t upper[kLanes];
    std::memcpy(bits, &halves[v].value, sizeof(bits));
    for (int i = 0; i < kLanes; ++i)
      upper[i] = static_cast<std::uint16_t>(bits[i] >> 16);
    std::memcpy(reinterpret_cast<std::uint16_t*>(words) + v * kLanes, upper, sizeof(upper));
  }
#endif
}
// The same rounded to integers, each row multiplied by its entry of `inverses` [rows].
void pack_matrix_quads(const float* source, std::int64_t stride, std::int64_t rows, std::int64_t count,
                       const float* inverses, float* panels);

#endif

}  // namespace siglip2::SIGLIP2_ISA
