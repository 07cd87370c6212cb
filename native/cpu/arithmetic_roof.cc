#include "cpu/arithmetic_roof.h"

#include <string>
#include <vector>

#include "cpu/cpu_features.h"
#include "cpu/thread_pool.h"
#include "tensor/error.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

namespace siglip2::cpu {
namespace {

constexpr int kOperandBytes = 4096;

struct RegisterLoop {
  const char* instruction;
  double operations_of_turn;
  // Multiplies `operands`, kOperandBytes of them, and leaves the sums in `sums`, as large.
  void (*run)(std::int64_t turns, const unsigned char* operands, unsigned char* sums);
};

#if defined(__x86_64__) && defined(__GNUC__)

constexpr double operations_of(int side, int lanes, int products_of_lane) {
  return 2.0 * side * side * lanes * products_of_lane;
}

// Adds the products of kSide registers and kSide others to sums of their own, once a turn. Statements of the assembler,
// because the compiler would compute products ahead.
#define SIGLIP2_UNROLLED _Pragma("GCC unroll 8")
#define SIGLIP2_REGISTER_LOOP(name, features, Register, load, store, side, product)                          \
  __attribute__((target(features))) void name(std::int64_t turns, const unsigned char* operands,             \
                                              unsigned char* results) {                                      \
    constexpr int kSide = side;                                                                              \
    Register a[kSide], b[kSide], sums[kSide][kSide];                                                         \
    const auto* const values = reinterpret_cast<const float*>(operands);                                     \
    constexpr int kLanes = sizeof(Register) / sizeof(float);                                                 \
    SIGLIP2_UNROLLED for (int i = 0; i < kSide; ++i) {                                                       \
      a[i] = load(values + i * kLanes);                                                                      \
      b[i] = load(values + (kSide + i) * kLanes);                                                            \
      SIGLIP2_UNROLLED for (int j = 0; j < kSide; ++j) sums[i][j] = load(values + (i * kSide + j) * kLanes); \
    }                                                                                                        \
    for (std::int64_t turn = 0; turn < turns; ++turn) {                                                      \
      SIGLIP2_UNROLLED for (int i = 0; i < kSide; ++i) {                                                     \
        SIGLIP2_UNROLLED for (int j = 0; j < kSide; ++j) {                                                   \
          Register& sum = sums[i][j];                                                                        \
          product;                                                                                           \
        }                                                                                                    \
      }                                                                                                      \
    }                                                                                                        \
    auto* const target = reinterpret_cast<float*>(results);                                                  \
    SIGLIP2_UNROLLED for (int i = 0; i < kSide; ++i) {                                                       \
      SIGLIP2_UNROLLED for (int j = 0; j < kSide; ++j) store(target + (i * kSide + j) * kLanes, sums[i][j]); \
    }                                                                                                        \
  }

// As many sums as the registers hold beside their operands, and more than an instruction's latency asks for.
constexpr int kSideOf16 = 3, kSideOf32 = 4;

SIGLIP2_REGISTER_LOOP(add_products_sse, "sse2", __m128, _mm_loadu_ps, _mm_storeu_ps, kSideOf16, {
  __m128 product_ab = a[i];
  asm volatile("mulps %2, %1\n\taddps %1, %0" : "+x"(sum), "+x"(product_ab) : "x"(b[j]));
})
SIGLIP2_REGISTER_LOOP(add_products_avx2, "avx2,fma", __m256, _mm256_loadu_ps, _mm256_storeu_ps, kSideOf16,
                      asm volatile("vfmadd231ps %2, %1, %0" : "+x"(sum) : "x"(a[i]), "x"(b[j])))
SIGLIP2_REGISTER_LOOP(add_halves_avx2, "avx2", __m256, _mm256_loadu_ps, _mm256_storeu_ps, kSideOf16, {
  __m256 products;
  asm volatile("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=&x"(products) : "x"(a[i]), "x"(b[j]));
})
SIGLIP2_REGISTER_LOOP(add_quads_avx2, "avx2", __m256, _mm256_loadu_ps, _mm256_storeu_ps, kSideOf16,
                      asm volatile("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(a[i]), "x"(b[j])))
SIGLIP2_REGISTER_LOOP(add_products_avx512, "avx512f", __m512, _mm512_loadu_ps, _mm512_storeu_ps, kSideOf32,
                      asm volatile("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(a[i]), "v"(b[j])))
SIGLIP2_REGISTER_LOOP(add_halves_avx512, "avx512f,avx512bw", __m512, _mm512_loadu_ps, _mm512_storeu_ps, kSideOf32, {
  __m512 products;
  asm volatile("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+v"(sum), "=&v"(products) : "v"(a[i]), "v"(b[j]));
})
SIGLIP2_REGISTER_LOOP(add_pairs_avx512, "avx512f,avx512bf16", __m512, _mm512_loadu_ps, _mm512_storeu_ps, kSideOf32,
                      asm volatile("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a[i]), "v"(b[j])))
SIGLIP2_REGISTER_LOOP(add_quads_avx512, "avx512f,avx512vnni", __m512, _mm512_loadu_ps, _mm512_storeu_ps, kSideOf32,
                      asm volatile("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a[i]), "v"(b[j])))

// The matrix unit (AMX): products of registers of 16 rows of 64 bytes, four sums of two and two operands. Statements of
// the assembler again, here because the compiler has no such registers unless it may use them everywhere.
struct alignas(64) TileShapes {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileShapes) == 64);

#define SIGLIP2_MATRIX_LOOP(name, product)                                                                \
  void name(std::int64_t turns, const unsigned char* operands, unsigned char* results) {                  \
    const TileShapes shapes;                                                                              \
    const std::int64_t stride = 64;                                                                       \
    asm volatile("ldtilecfg %0" ::"m"(shapes));                                                           \
    asm volatile(                                                                                         \
        "tilezero %%tmm0\n\ttilezero %%tmm1\n\ttilezero %%tmm2\n\ttilezero %%tmm3\n\t"                    \
        "tileloadd (%0,%1), %%tmm4\n\ttileloadd 1024(%0,%1), %%tmm5\n\t"                                  \
        "tileloadd 2048(%0,%1), %%tmm6\n\ttileloadd 3072(%0,%1), %%tmm7" ::"r"(operands),                 \
        "r"(stride)                                                                                       \
        : "memory");                                                                                      \
    for (std::int64_t turn = 0; turn < turns; ++turn) {                                                   \
      asm volatile(product " %tmm6, %tmm4, %tmm0\n\t" product " %tmm7, %tmm4, %tmm1\n\t" product          \
                           " %tmm6, %tmm5, %tmm2\n\t" product " %tmm7, %tmm5, %tmm3");                    \
    }                                                                                                     \
    asm volatile(                                                                                         \
        "tilestored %%tmm0, (%0,%1)\n\ttilestored %%tmm1, 1024(%0,%1)\n\t"                                \
        "tilestored %%tmm2, 2048(%0,%1)\n\ttilestored %%tmm3, 3072(%0,%1)\n\ttilerelease" ::"r"(results), \
        "r"(stride)                                                                                       \
        : "memory");                                                                                      \
  }
SIGLIP2_MATRIX_LOOP(add_matrices_of_pairs, "tdpbf16ps")
SIGLIP2_MATRIX_LOOP(add_matrices_of_quads, "tdpbssd")

RegisterLoop loop_of(DType type, const std::string& isa) {
  if (isa == "amx" && type == DType::kBFloat16) return {"tdpbf16ps", 2.0 * 4 * 16 * 16 * 32, add_matrices_of_pairs};
  if (isa == "amx" && type == DType::kInt8) return {"tdpbssd", 2.0 * 4 * 16 * 16 * 64, add_matrices_of_quads};
  const bool bf16 = isa == "avx512bf16";
  if (isa.starts_with("avx512") || isa == "amx") {
    if (type == DType::kInt8 && (bf16 || isa == "avx512vnni"))
      return {"vpdpbusd, 512 bits", operations_of(kSideOf32, 16, 4), add_quads_avx512};
    if (type == DType::kInt8)
      return {"vpmaddwd and vpaddd, 512 bits", operations_of(kSideOf32, 16, 2), add_halves_avx512};
    if (type == DType::kBFloat16 && bf16)
      return {"vdpbf16ps, 512 bits", operations_of(kSideOf32, 16, 2), add_pairs_avx512};
    return {"vfmadd231ps, 512 bits", operations_of(kSideOf32, 16, 1), add_products_avx512};
  }
  if (isa == "avx2vnni" && type == DType::kInt8)
    return {"vpdpbusd, 256 bits", operations_of(kSideOf16, 8, 4), add_quads_avx2};
  if (isa == "avx2" || isa == "avx2vnni") {
    if (type == DType::kInt8) return {"vpmaddwd and vpaddd, 256 bits", operations_of(kSideOf16, 8, 2), add_halves_avx2};
    return {"vfmadd231ps, 256 bits", operations_of(kSideOf16, 8, 1), add_products_avx2};
  }
  if ((isa == "baseline" || isa == "wide16") && type != DType::kInt8)
    return {"mulps and addps, 128 bits", operations_of(kSideOf16, 4, 1), add_products_sse};
  return {};
}

#else

RegisterLoop loop_of(DType, const std::string&) {
  return {};
}

#endif

// Numbers of either sign between 1/8 and 2, float32 or pairs of bfloat16, or any bytes.
std::vector<std::uint32_t> random_operands(DType type) {
  std::vector<std::uint32_t> words(kOperandBytes / sizeof(std::uint32_t));
  std::uint64_t state = 0x9e3779b97f4a7c15;
  const auto next = [&] {
    state = state * 6364136223846793005 + 1442695040888963407;
    return static_cast<std::uint32_t>(state >> 32);
  };
  // The exponents 124 to 127.
  const auto as_number = [](std::uint32_t bits) { return (bits & 0x81ffu) | 0x3e00u; };
  for (std::uint32_t& word : words) {
    word = next();
    if (type == DType::kInt8) continue;
    const std::uint32_t lower = type == DType::kBFloat16 ? as_number(word & 0xffffu) : word & 0xffffu;
    word = as_number(word >> 16) << 16 | lower;
  }
  return words;
}

}  // namespace

ArithmeticRoof run_arithmetic_roof(DType type, std::int64_t turns, int threads) {
  if (type != DType::kFloat32 && type != DType::kBFloat16 && type != DType::kInt8)
    throw Error(kErrorUnsupported, std::string("dtype: expected float32, bfloat16 or int8, got ") + name_of(type));
  const std::string isa = chosen_instruction_set();
  const RegisterLoop loop = loop_of(type, isa);
  if (loop.run == nullptr)
    throw Error(kErrorUnsupported, std::string("there is no roof of ") + name_of(type) + " for instruction set " + isa);

  // More parts than threads: one that another program holds up must not decide.
  constexpr std::int64_t kParts = 16;
  const std::int64_t part_turns = (turns + kParts - 1) / kParts;
  const std::vector<std::uint32_t> operands = random_operands(type);
  parallel_for(kParts * threads, threads, [&](std::int64_t, int worker) {
    const auto* const bytes = reinterpret_cast<const unsigned char*>(operands.data());
    loop.run(part_turns, bytes, static_cast<unsigned char*>(worker_scratch(worker, kOperandBytes)));
  });
  return {loop.instruction, loop.operations_of_turn * static_cast<double>(part_turns * kParts) * threads};
}

}  // namespace siglip2::cpu
