#include "cpu/simd/pair_panels.h"

#include "cpu/simd/column_sums.h"
#include "cpu/simd/matrix_unit.h"
#include "cpu/simd/row_words.h"
#include "cpu/simd/simd_math.h"

namespace siglip2::SIGLIP2_ISA {
namespace {

#if defined(SIGLIP2_ISA_avx512)
// Rounds and joins in two instructions on machines with vdpbf16ps.
class PairConverter {
 public:
  SIGLIP2_INLINE Vec operator()(Vec first, Vec second) const {
    return interleave(bits_of(round_halves(first, second)));
  }
  // Of kLanes values that are rounded already. Without `second` zeros take its place.
  SIGLIP2_INLINE Vec operator()(const BFloat16* first, const BFloat16* second) const {
    const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(first));
    const __m256i high =
        second == nullptr ? _mm256_setzero_si256() : _mm256_loadu_si256(reinterpret_cast<const __m256i*>(second));
    return interleave(_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1));
  }

 private:
  SIGLIP2_INLINE Vec interleave(__m512i halves) const {
    return from_bits(_mm512_maskz_permutexvar_epi16(0xffffffff, interleave_, halves));
  }

  alignas(64) static constexpr std::int16_t kInterleaved[] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                              21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                              11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  __m512i interleave_ = _mm512_load_si512(kInterleaved);
};
#endif

struct PairRounder {
  SIGLIP2_INLINE Vec operator()(Vec first, Vec second) const {
    return join_pair(round_to_bfloat16(first), round_to_bfloat16(second));
  }
};

// The first `lanes` values at `source`; zeros at a row that is not there.
template <typename Value>
SIGLIP2_INLINE Vec load_lanes(const Value* source, int lanes) {
  if (source == nullptr) return zero();
  return lanes == kLanes ? load(source) : load_first(source, lanes);
}

// Pairs of values of two rows, of which the second may be null: zeros.
template <typename Value, typename Join>
SIGLIP2_INLINE Vec join_values(const Value* first, const Value* second, int lanes, const Join& join) {
  return join(load_lanes(first, lanes), load_lanes(second, lanes));
}
#if defined(SIGLIP2_ISA_avx512)
SIGLIP2_INLINE Vec join_values(const BFloat16* first, const BFloat16* second, int lanes, const PairConverter& join) {
  return lanes == kLanes ? join(first, second) : join(load_lanes(first, lanes), load_lanes(second, lanes));
}
#endif

// The second row of a pair, null behind the last row of an odd number.
template <typename Value>
SIGLIP2_INLINE const Value* second_row(const Value* first, std::int64_t stride, std::int64_t pair, std::int64_t depth) {
  return 2 * pair + 1 < depth ? first + stride : nullptr;
}

// As pack_transposed_pair_rows, with `put(panel, first, second, lanes, rows, last)` for each pair of a panel's rows, of
// which `lanes` values may be read; the second may be null. Stores may spill over into what follows in the panel,
// except those of its last pair.
template <typename Value, typename Put>
SIGLIP2_INLINE void pack_transposed(const Value* source, std::int64_t stride, std::int64_t depth, std::int64_t columns,
                                    std::int64_t readable, std::int64_t words, float* panels, float* sums,
                                    const Put& put) {
  // As many rows of the source at a time as keep apart in the L1 cache even where their distance is a power of two.
  constexpr std::int64_t kStepPairs = 4;
  const std::int64_t pairs = (depth + 1) / 2;
  for (std::int64_t start = 0; start < pairs; start += kStepPairs) {
    const std::int64_t end = pairs - start < kStepPairs ? pairs : start + kStepPairs;
    const std::int64_t foreseen = 2 * (end + kStepPairs) <= depth ? 2 * kStepPairs * stride : 0;
    const std::int64_t last_row = 2 * end < depth ? 2 * end : depth;
    if (sums != nullptr) add_column_sums(source + 2 * start * stride, stride, last_row - 2 * start, columns, sums);
    for (std::int64_t column = 0; column < columns; column += kTileRows) {
      const int rows = static_cast<int>(columns - column < kTileRows ? columns - column : kTileRows);
      const int lanes = static_cast<int>(readable - column < kLanes ? readable - column : kLanes);
      for (std::int64_t pair = start; pair < end; ++pair) {
        const Value* const first = source + 2 * pair * stride + column;
        // The rows lie too far apart for the machine to see what comes next.
        if (foreseen != 0) {
          prefetch_near(first + foreseen);
          prefetch_near(first + foreseen + stride);
        }
        put(panels + (column * pairs + pair * kTileRows) * words, first, second_row(first, stride, pair, depth), lanes,
            rows, pair + 1 == pairs);
      }
    }
  }
}

#if defined(SIGLIP2_MATRIX_UNIT)
// The same for a matrix unit: squares of 16 columns and 16 pairs, whose columns become rows of a register, the two
// squares of a tile of 32 columns one after the other.
template <typename Value, typename Join>
void pack_transposed_registers(const Value* source, std::int64_t stride, std::int64_t depth, std::int64_t columns,
                               std::int64_t readable, float* panels, float* sums, const Join& join) {
  constexpr std::int64_t kHeight = kMatrixUnitFormat.rows;
  const std::int64_t units = kMatrixUnitFormat.units(depth, 2);
  for (std::int64_t tile = 0; tile < columns; tile += kHeight) {
    const std::int64_t end = columns - tile < kHeight ? columns : tile + kHeight;
    for (std::int64_t unit = 0; unit < units; unit += kLanes) {
      for (std::int64_t column = tile; column < end; column += kLanes) {
        const std::int64_t left = readable - column;
        const int lanes = static_cast<int>(left < kLanes ? left : kLanes);
        Vec square[kLanes], sum = zero();
        for (int i = 0; i < kLanes; ++i) {
          const std::int64_t row = 2 * (unit + i);
          const Value* const first = row < depth ? source + row * stride + column : nullptr;
          // The rows lie too far apart for the machine to see what comes next.
          if (row + 2 * kLanes + 1 < depth) {
            prefetch(first + 2 * kLanes * stride);
            prefetch(first + (2 * kLanes + 1) * stride);
          }
          const Value* const second = second_row(first, stride, unit + i, depth);
          if (sums != nullptr) sum = sum + (load_lanes(first, lanes) + load_lanes(second, lanes));
          square[i] = first == nullptr ? zero() : join_values(first, second, lanes, join);
        }
        transpose(square);
        float* const target = panels + tile * units + unit * kHeight + (column - tile) * kLanes;
        for (int i = 0; i < kLanes; ++i)
          store(target + i * kLanes, square[i]);
        if (sums != nullptr) store(sums + column, load(sums + column) + sum);
      }
    }
  }
}
#endif

// As pack_pair_columns; join(first, second, lanes) makes pairs of two rows, as join_values does.
template <typename Value, typename Join>
SIGLIP2_INLINE void pack_columns(const Value* source, std::int64_t stride, std::int64_t depth, std::int64_t columns,
                                 float* panels, const Join& join) {
  // The rows lie too far apart for the machine to see what comes next.
  constexpr std::int64_t kAhead = 8, kLine = 64 / sizeof(Value);
  const std::int64_t pairs = (depth + 1) / 2, units = pair_format().units(depth, 2);
  for (std::int64_t column = 0; column < columns && units > pairs; column += kTileColumns)
    std::memset(panels + column * units + pairs * kTileColumns, 0,
                static_cast<std::size_t>((units - pairs) * kTileColumns) * sizeof(float));
  for (std::int64_t pair = 0; pair < pairs; ++pair) {
    const Value* const first = source + 2 * pair * stride;
    const Value* const second = second_row(first, stride, pair, depth);
    if (2 * (pair + kAhead) + 1 < depth) {
      for (std::int64_t column = 0; column < columns; column += kLine) {
        prefetch_near(first + 2 * kAhead * stride + column);
        prefetch_near(first + (2 * kAhead + 1) * stride + column);
      }
    }
    for (std::int64_t column = 0; column < columns; column += kTileColumns) {
      float* const target = panels + column * units + pair * kTileColumns;
      SIGLIP2_UNROLL for (int v = 0; v < kTileVectors; ++v) {
        const std::int64_t at = column + v * kLanes, left = columns - at;
        const int lanes = static_cast<int>(left < 0 ? 0 : left < kLanes ? left : kLanes);
        store(target + v * kLanes, join(first + at, second == nullptr ? nullptr : second + at, lanes));
      }
    }
  }
}

template <typename Join>
SIGLIP2_INLINE void join_rows(float* panel, std::int64_t depth, std::int64_t units, const Join& join) {
  const std::int64_t whole = depth / 2;
  for (std::int64_t unit = 0; unit < units; ++unit) {
    const float* const first = panel + 2 * unit * kTileColumns;
    SIGLIP2_UNROLL for (int v = 0; v < kTileVectors; ++v) {
      const Vec upper = 2 * unit < depth ? load(first + v * kLanes) : zero();
      const Vec lower = unit < whole ? load(first + kTileColumns + v * kLanes) : zero();
      store(panel + unit * kTileColumns + v * kLanes, join(upper, lower));
    }
  }
}

template <typename Value>
void pack_transposed_rows_of(const Value* source, std::int64_t stride, std::int64_t depth, std::int64_t columns,
                             std::int64_t readable, float* panels, float* sums) {
#if defined(SIGLIP2_MATRIX_UNIT)
  if (pair_format().step > 1) {
#if defined(SIGLIP2_ISA_avx512)
    const PairConverter join;
#else
    const PairRounder join;
#endif
    return pack_transposed_registers(source, stride, depth, columns, readable, panels, sums, join);
  }
#endif
#if defined(SIGLIP2_ISA_avx512)
  if (pair_format().row_words == 1) {
    const PairConverter join;
    return pack_transposed(source, stride, depth, columns, readable, 1, panels, sums,
                           [&](float* panel, const Value* first, const Value* second, int lanes, int rows, bool last)
                               __attribute__((always_inline)) {
                                 const Vec pair = join_values(first, second, lanes, join);
                                 last ? store_first(panel, pair, rows) : store(panel, pair);
                               });
  }
#endif
  pack_transposed(source, stride, depth, columns, readable, 2, panels, sums,
                  [](float* panel, const Value* first, const Value* second, int lanes, int rows, bool last)
                      __attribute__((always_inline)) {
                        store(panel, round_to_bfloat16(load_lanes(first, lanes)));
                        const Vec rounded = round_to_bfloat16(load_lanes(second, lanes));
                        last ? store_first(panel + kTileRows, rounded, rows) : store(panel + kTileRows, rounded);
                      });
}

template <typename Value, typename Join>
SIGLIP2_INLINE void pack_columns_of(const Value* source, std::int64_t stride, std::int64_t depth, std::int64_t columns,
                                    bool gelu, float* panels, const Join& join) {
  const auto as_it_is = [&](const Value* first, const Value* second, int lanes)
                            __attribute__((always_inline)) { return join_values(first, second, lanes, join); };
  const auto activated = [&](const Value* first, const Value* second, int lanes) __attribute__((always_inline)) {
    return join(gelu_tanh_short(load_lanes(first, lanes)), gelu_tanh_short(load_lanes(second, lanes)));
  };
  gelu ? pack_columns(source, stride, depth, columns, panels, activated)
       : pack_columns(source, stride, depth, columns, panels, as_it_is);
}

}  // namespace

void pack_transposed_pair_rows(const Operand& source, std::int64_t depth, std::int64_t columns, std::int64_t readable,
                               float* panels, float* sums) {
  source.read([&](const auto* values) {
    pack_transposed_rows_of(values, source.stride(), depth, columns, readable, panels, sums);
  });
}

void pack_pair_columns(const Operand& source, std::int64_t depth, std::int64_t columns, bool gelu, float* panels) {
  source.read([&](const auto* values) {
#if defined(SIGLIP2_ISA_avx512)
    if (pair_format().row_words == 1)
      return pack_columns_of(values, source.stride(), depth, columns, gelu, panels, PairConverter());
#endif
    pack_columns_of(values, source.stride(), depth, columns, gelu, panels, PairRounder());
  });
}

void join_panel_rows(float* panel, std::int64_t depth, std::int64_t units) {
#if defined(SIGLIP2_ISA_avx512)
  if (pair_format().row_words == 1) return join_rows(panel, depth, units, PairConverter());
#endif
  join_rows(panel, depth, units, PairRounder());
}

}  // namespace siglip2::SIGLIP2_ISA
