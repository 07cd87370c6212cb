#include "cpu/simd/quad_tile.h"

#include "cpu/simd/matrix_unit.h"
#include "cpu/simd/row_words.h"

namespace siglip2::SIGLIP2_ISA {
namespace {

using cpu::ProductMethod;

constexpr TileFormat kWidenedFormat = {kTileRows, 2, 1, kMostUnits};
constexpr TileFormat kDotFormat = {kTileRows, 1, 1, kMostUnits};

ProductMethod quad_method = ProductMethod::kConversion;

// What is there of a tile's sums, or zeros.
template <int kRows>
SIGLIP2_INLINE void load_sums(Vec (&sums)[kRows][kTileVectors], const TileArgs& args) {
  SIGLIP2_UNROLL for (int i = 0; i < kRows; ++i) {
    SIGLIP2_UNROLL for (int v = 0; v < kTileVectors; ++v) {
      sums[i][v] = args.accumulate ? load(args.out + i * args.out_stride + v * kLanes) : zero();
    }
  }
}
template <int kRows>
SIGLIP2_INLINE void store_sums(const Vec (&sums)[kRows][kTileVectors], const TileArgs& args) {
  SIGLIP2_UNROLL for (int i = 0; i < kRows; ++i) {
    SIGLIP2_UNROLL for (int v = 0; v < kTileVectors; ++v) {
      store(args.out + i * args.out_stride + v * kLanes, sums[i][v]);
    }
  }
}

// By 16-bit products: a has two words for a quad, of the values 0 and 2 and of 1 and 3.
template <int kRows>
void multiply_widened(const TileArgs& args) {
  const float* const a = args.a;
  const float* const b = args.b;
  const std::int64_t count = args.count;
  Vec sums[kRows][kTileVectors];
  load_sums<kRows>(sums, args);
  for (std::int64_t quad = 0; quad < count; ++quad) {
    Vec columns[kTileVectors];
    SIGLIP2_UNROLL for (int v = 0; v < kTileVectors; ++v) {
      columns[v] = even_bytes(load(b + quad * kTileColumns + v * kLanes));
    }
    SIGLIP2_UNROLL for (int i = 0; i < kRows; ++i) {
      const Vec x = broadcast(a[2 * quad * kTileRows + i]);
      SIGLIP2_UNROLL for (int v = 0; v < kTileVectors; ++v) sums[i][v] = add_half_products(sums[i][v], x, columns[v]);
    }
    SIGLIP2_UNROLL for (int v = 0; v < kTileVectors; ++v) {
      columns[v] = odd_bytes(load(b + quad * kTileColumns + v * kLanes));
    }
    SIGLIP2_UNROLL for (int i = 0; i < kRows; ++i) {
      const Vec x = broadcast(a[(2 * quad + 1) * kTileRows + i]);
      SIGLIP2_UNROLL for (int v = 0; v < kTileVectors; ++v) sums[i][v] = add_half_products(sums[i][v], x, columns[v]);
    }
  }
  store_sums<kRows>(sums, args);
}

#if defined(SIGLIP2_ISA_avx512) || defined(SIGLIP2_ISA_avx2)
// Adds the products of four unsigned bytes of `rows` and four signed ones of `columns` to each lane's sum. Not the
// intrinsic: GCC 12 copies the sum before and after it, and runs out of registers.
SIGLIP2_INLINE void add_quad_products(Vec& sum, Vec rows, Vec columns) {
#if defined(SIGLIP2_ISA_avx512)
  asm("vpdpbusd %2, %1, %0" : "+v"(sum.value) : "v"(rows.value), "v"(columns.value));
#else
  // AVX-VNNI, whose encoding is another one.
  asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum.value) : "x"(rows.value), "x"(columns.value));
#endif
}

// By vpdpbusd: a has 32 bits for a quad.
template <int kRows>
void multiply_quads(const TileArgs& args) {
  const float* const a = args.a;
  const float* const b = args.b;
  const std::int64_t count = args.count;
  Vec sums[kRows][kTileVectors];
  load_sums<kRows>(sums, args);
  for (std::int64_t quad = 0; quad < count; ++quad) {
    Vec columns[kTileVectors];
    SIGLIP2_UNROLL for (int v = 0; v < kTileVectors; ++v) columns[v] = load(b + quad * kTileColumns + v * kLanes);
    SIGLIP2_UNROLL for (int i = 0; i < kRows; ++i) {
      const Vec x = broadcast(a[quad * kTileRows + i]);
      SIGLIP2_UNROLL for (int v = 0; v < kTileVectors; ++v) add_quad_products(sums[i][v], x, columns[v]);
    }
  }
  store_sums<kRows>(sums, args);
}
#endif

template <int kRows>
void multiply_up_to(int rows, const TileArgs& args) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return multiply_up_to<kRows - 1>(rows, args);
  }
#if defined(SIGLIP2_ISA_avx512) || defined(SIGLIP2_ISA_avx2)
  if (quad_method == ProductMethod::kDot) return multiply_quads<kRows>(args);
#endif
  multiply_widened<kRows>(args);
}

QuadScale scale_of_row(const float* values, std::int64_t count) {
  Vec largest = zero(), nothing = zero();
  for (std::int64_t k = 0; k < count; k += kLanes) {
    const Vec x = count - k < kLanes ? load_first(values + k, static_cast<int>(count - k)) : load(values + k);
    largest = max(largest, max(x, zero() - x));
    nothing = nothing + x * zero();  // NaN once a value is not finite
  }
  float lanes[kLanes];
  store(lanes, largest);
  float most = 0;
  for (const float lane : lanes)
    most = lane > most ? lane : most;
  return QuadScale::of(most, reduce_add(nothing) == 0);
}

// One tile of rows for the vector units, each row multiplied by its entry of `inverses`.
void quantize_tile(const float* source, std::int64_t stride, std::int64_t rows, std::int64_t count,
                   const float* inverses, float* target) {
  const bool dot = quad_method == ProductMethod::kDot;
#if defined(SIGLIP2_ISA_avx512)
  if (dot) {
    return pack_words<4>(rows, count, target, [&](std::int64_t i, std::int64_t k) __attribute__((always_inline)) {
      return flip_bytes(quad_words(source + i * stride + k, count - k, broadcast(inverses[i])));
    });
  }
#endif
  for (std::int64_t k = 0; k < count; k += kLanes) {
    const int lanes = static_cast<int>(count - k < kLanes ? count - k : kLanes);
    Vec square[kLanes];
    load_square(rows, square, [&](std::int64_t i) __attribute__((always_inline)) {
      const float* const values = source + i * stride + k;
      const Vec x = lanes == kLanes ? load(values) : load_first(values, lanes);
      return rounded_bits(x * broadcast(inverses[i]));
    });
    // Each store's surplus lanes are overwritten by the next.
    SIGLIP2_UNROLL for (int j = 0; j < kLanes; j += 4) {
      if (j >= lanes) continue;
      if (dot) {
        store(target, flip_bytes(join_bytes(square[j], square[j + 1], square[j + 2], square[j + 3])));
        target += kTileRows;
      } else {
        store(target, join_halves(square[j], square[j + 2]));
        store(target + kTileRows, join_halves(square[j + 1], square[j + 3]));
        target += 2 * kTileRows;
      }
    }
  }
}

}  // namespace

void use_quad_products(ProductMethod method) {
  quad_method = method;
  prepare_matrix_unit(method);
}

ProductMethod quad_product_method() {
  return quad_method;
}

const TileFormat& quad_format() {
  if (uses_matrix_unit(quad_method)) return kMatrixUnitFormat;
  return quad_method == ProductMethod::kDot ? kDotFormat : kWidenedFormat;
}

void multiply_quad_tile(int rows, const TileArgs& args) {
#if defined(SIGLIP2_MATRIX_UNIT)
  if (uses_matrix_unit(quad_method))
    return multiply_matrix_quads(quad_method == ProductMethod::kEmulatedMatrixUnit, rows, args);
#endif
  multiply_up_to<kTileRows>(rows, args);
}

void quantize_rows(const float* source, std::int64_t stride, std::int64_t rows, std::int64_t count, float* panels,
                   float* scales) {
  static_assert(kLanes % 4 == 0);
  constexpr std::int64_t kMostRows = 32;
  const TileFormat& format = quad_format();
  const std::int64_t words = format.units(count, 4) * format.row_words;
  for (std::int64_t row = 0; row < rows; row += format.rows) {
    float* const target = panels + row * words;
    const std::int64_t tile_rows = rows - row < format.rows ? rows - row : format.rows;
    float inverses[kMostRows] = {};
    for (std::int64_t i = 0; i < tile_rows; ++i) {
      const QuadScale scale = scale_of_row(source + (row + i) * stride, count);
      inverses[i] = scale.inverse;
      scales[row + i] = scale.scale;
    }
#if defined(SIGLIP2_MATRIX_UNIT)
    if (uses_matrix_unit(quad_method)) {
      pack_matrix_quads(source + row * stride, stride, tile_rows, count, inverses, target);
      continue;
    }
#endif
    quantize_tile(source + row * stride, stride, tile_rows, count, inverses, target);
  }
}

void scale_quad_tile(float* sums, std::int64_t rows, const float* tail, const float* row_scales) {
  for (int v = 0; v < kTileVectors; ++v) {
    const Vec scale = load(tail + v * kLanes);
    const Vec offset = quad_method == ProductMethod::kDot ? load(tail + kTileColumns + v * kLanes) : zero();
    for (std::int64_t i = 0; i < rows; ++i) {
      float* const sum = sums + i * kTileColumns + v * kLanes;
      store(sum, int_to_float(subtract_int(load(sum), offset)) * (scale * broadcast(row_scales[i])));
    }
  }
}

}  // namespace siglip2::SIGLIP2_ISA
