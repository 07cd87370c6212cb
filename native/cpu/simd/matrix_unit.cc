#include "cpu/simd/matrix_registers.h"
#include "cpu/simd/row_words.h"

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

template <Element kElement>
void multiply(bool emulated, int rows, const TileArgs& args) {
  NoWork nothing;
  if (emulated) {
    rows > kRegisterRows ? multiply_matrix_tile<EmulatedRegisters, kElement, true>(args, args.count, nothing)
                         : multiply_matrix_tile<EmulatedRegisters, kElement, false>(args, args.count, nothing);
  } else {
    rows > kRegisterRows ? multiply_matrix_tile<Registers, kElement, true>(args, args.count, nothing)
                         : multiply_matrix_tile<Registers, kElement, false>(args, args.count, nothing);
  }
}

// The words of one row of a register: 32 values of bfloat16 or 64 integers, of which the first `count` are there.
#if defined(SIGLIP2_ISA_avx512)
template <typename Value>
SIGLIP2_INLINE void join_row(const Value* source, int count, float* words) {
  store(words, pair_words(source, count));
}
SIGLIP2_INLINE void quantize_row(const float* source, int count, Vec inverse, float* words) {
  store(words, quad_words(source, count, inverse));
}
#else
inline void join_row(const float* source, int count, float* words) {
  float values[2 * kLanes] = {};
  std::memcpy(values, source, static_cast<std::size_t>(count) * sizeof(float));
  store_pair_words(load(values), load(values + kLanes), words);
}
inline void join_row(const BFloat16* source, int count, float* words) {
  std::memset(words, 0, kLanes * sizeof(float));
  std::memcpy(words, source, static_cast<std::size_t>(count) * sizeof(BFloat16));
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

void pack_matrix_pairs(const Operand& source, std::int64_t rows, std::int64_t count, float* panels) {
  source.read([&](const auto* all) {
    pack_registers<2 * kLanes>(rows, count, panels,
                               [&](std::int64_t row, std::int64_t first, int values, float* words) {
                                 join_row(all + row * source.stride() + first, values, words);
                               });
  });
}

void pack_matrix_quads(const float* source, std::int64_t stride, std::int64_t rows, std::int64_t count,
                       const float* inverses, float* panels) {
  pack_registers<4 * kLanes>(rows, count, panels, [&](std::int64_t row, std::int64_t first, int values, float* words) {
    quantize_row(source + row * stride + first, values, broadcast(inverses[row]), words);
  });
}

#endif

}  // namespace siglip2::SIGLIP2_ISA
