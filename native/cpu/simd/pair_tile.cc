#include "cpu/simd/pair_tile.h"

#include "cpu/simd/matrix_unit.h"
#include "cpu/simd/row_words.h"

namespace siglip2::SIGLIP2_ISA {
namespace {

using cpu::ProductMethod;

constexpr TileFormat kConvertedFormat = {kTileRows, 2, 1, kMostUnits};
constexpr TileFormat kDotFormat = {kTileRows, 1, 1, kMostUnits};

ProductMethod pair_method = ProductMethod::kConversion;

// The sums of a tile, added to what is there.
template <int kRows>
SIGLIP2_INLINE void store_sums(const Vec (&sums)[kRows][kTileVectors], const TileArgs& args) {
  SIGLIP2_UNROLL for (int i = 0; i < kRows; ++i) {
    SIGLIP2_UNROLL for (int v = 0; v < kTileVectors; ++v) {
      float* const out = args.out + i * args.out_stride + v * kLanes;
      store(out, args.accumulate ? load(out) + sums[i][v] : sums[i][v]);
    }
  }
}

// By conversion: a has two float32 values for a pair.
template <int kRows>
void multiply_converted(const TileArgs& args) {
  const float* const a = args.a;
  const float* const b = args.b;
  const std::int64_t count = args.count;
  Vec sums[kRows][kTileVectors];
  SIGLIP2_UNROLL for (int i = 0; i < kRows; ++i) {
    SIGLIP2_UNROLL for (int v = 0; v < kTileVectors; ++v) sums[i][v] = zero();
  }
  for (std::int64_t pair = 0; pair < count; ++pair) {
    // Loaded twice: sums and columns leave no register for what both come from.
    Vec columns[kTileVectors];
    SIGLIP2_UNROLL for (int v = 0; v < kTileVectors; ++v) {
      columns[v] = first_of_pair(load(b + pair * kTileColumns + v * kLanes));
    }
    SIGLIP2_UNROLL for (int i = 0; i < kRows; ++i) {
      const Vec x = broadcast(a[2 * pair * kTileRows + i]);
      SIGLIP2_UNROLL for (int v = 0; v < kTileVectors; ++v) sums[i][v] = multiply_add(x, columns[v], sums[i][v]);
    }
    SIGLIP2_UNROLL for (int v = 0; v < kTileVectors; ++v) {
      columns[v] = second_of_pair(load(b + pair * kTileColumns + v * kLanes));
    }
    SIGLIP2_UNROLL for (int i = 0; i < kRows; ++i) {
      const Vec x = broadcast(a[(2 * pair + 1) * kTileRows + i]);
      SIGLIP2_UNROLL for (int v = 0; v < kTileVectors; ++v) sums[i][v] = multiply_add(x, columns[v], sums[i][v]);
    }
  }
  store_sums<kRows>(sums, args);
}

#if defined(SIGLIP2_ISA_avx512)
// By vdpbf16ps: a has 32 bits for a pair.
template <int kRows>
__attribute__((target("avx512bf16"))) void multiply_pairs(const TileArgs& args) {
  const float* const a = args.a;
  const float* const b = args.b;
  const std::int64_t count = args.count;
  __m512 sums[kRows][kTileVectors];
  SIGLIP2_UNROLL for (int i = 0; i < kRows; ++i) {
    SIGLIP2_UNROLL for (int v = 0; v < kTileVectors; ++v) sums[i][v] = _mm512_setzero_ps();
  }
  for (std::int64_t pair = 0; pair < count; ++pair) {
    __m512bh columns[kTileVectors];
    SIGLIP2_UNROLL for (int v = 0; v < kTileVectors; ++v) {
      columns[v] = reinterpret_cast<__m512bh>(_mm512_loadu_ps(b + pair * kTileColumns + v * kLanes));
    }
    SIGLIP2_UNROLL for (int i = 0; i < kRows; ++i) {
      const __m512bh x = reinterpret_cast<__m512bh>(_mm512_set1_ps(a[pair * kTileRows + i]));
      SIGLIP2_UNROLL for (int v = 0; v < kTileVectors; ++v) {
        sums[i][v] = _mm512_dpbf16_ps(sums[i][v], x, columns[v]);
      }
    }
  }
  Vec results[kRows][kTileVectors];
  SIGLIP2_UNROLL for (int i = 0; i < kRows; ++i) {
    SIGLIP2_UNROLL for (int v = 0; v < kTileVectors; ++v) results[i][v] = {sums[i][v]};
  }
  store_sums<kRows>(results, args);
}
#endif

template <int kRows>
void multiply_up_to(int rows, const TileArgs& args) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return multiply_up_to<kRows - 1>(rows, args);
  }
#if defined(SIGLIP2_ISA_avx512)
  if (pair_method == ProductMethod::kDot) return multiply_pairs<kRows>(args);
#endif
  multiply_converted<kRows>(args);
}

// Rows of either type for tiles that no matrix unit makes.
template <typename Value>
void pack_rows_of(const Value* source, std::int64_t stride, std::int64_t rows, std::int64_t count, float* panels) {
  static_assert(kLanes % 2 == 0);
  const std::int64_t words = pair_format().units(count, 2) * pair_format().row_words;
  for (std::int64_t row = 0; row < rows; row += kTileRows) {
    float* target = panels + row * words;
    const std::int64_t tile_rows = rows - row < kTileRows ? rows - row : kTileRows;
    const Value* const first = source + row * stride;
#if defined(SIGLIP2_ISA_avx512)
    if (pair_method == ProductMethod::kDot) {
      pack_words<2>(tile_rows, count, target, [&](std::int64_t i, std::int64_t k) __attribute__((always_inline)) {
        return pair_words(first + i * stride + k, count - k);
      });
      continue;
    }
#endif
    for (std::int64_t k = 0; k < count; k += kLanes) {
      const int lanes = static_cast<int>(count - k < kLanes ? count - k : kLanes);
      Vec square[kLanes];
      load_square(tile_rows, square, [&](std::int64_t i) __attribute__((always_inline)) {
        const Value* const values = first + i * stride + k;
        return round_to_bfloat16(lanes == kLanes ? load(values) : load_first(values, lanes));
      });
      // Each store's surplus lanes are overwritten by the next.
      SIGLIP2_UNROLL for (int j = 0; j < kLanes; j += 2) {
        if (j >= lanes) continue;
        store(target, square[j]);
        store(target + kTileRows, square[j + 1]);
        target += 2 * kTileRows;
      }
    }
  }
}

}  // namespace

void use_pair_products(ProductMethod method) {
  pair_method = method;
  prepare_matrix_unit(method);
}

ProductMethod pair_product_method() {
  return pair_method;
}

const TileFormat& pair_format() {
  if (uses_matrix_unit(pair_method)) return kMatrixUnitFormat;
  return pair_method == ProductMethod::kDot ? kDotFormat : kConvertedFormat;
}

void multiply_pair_tile(int rows, const TileArgs& args) {
#if defined(SIGLIP2_MATRIX_UNIT)
  if (uses_matrix_unit(pair_method))
    return multiply_matrix_pairs(pair_method == ProductMethod::kEmulatedMatrixUnit, rows, args);
#endif
  multiply_up_to<kTileRows>(rows, args);
}

void pack_pair_rows(const Operand& source, std::int64_t rows, std::int64_t count, float* panels) {
#if defined(SIGLIP2_MATRIX_UNIT)
  if (uses_matrix_unit(pair_method)) return pack_matrix_pairs(source, rows, count, panels);
#endif
  source.read([&](const auto* values) { pack_rows_of(values, source.stride(), rows, count, panels); });
}

}  // namespace siglip2::SIGLIP2_ISA
