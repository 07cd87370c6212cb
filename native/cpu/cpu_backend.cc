#include "cpu/cpu_backend.h"

#include <string>

#include "cpu/cpu_features.h"
#include "cpu/host_memory_ops.h"
#include "cpu/product_method.h"

// One declaration for each build that CMake compiled in; see cpu/kernels.h.
#define SIGLIP2_DECLARE_BUILD(isa)            \
  namespace siglip2::isa {                    \
  void fill_kernels(OpTable&);                \
  void use_pair_products(cpu::ProductMethod); \
  void use_quad_products(cpu::ProductMethod); \
  }
SIGLIP2_DECLARE_BUILD(baseline)
SIGLIP2_DECLARE_BUILD(wide16)
#if defined(SIGLIP2_HAVE_avx2)
SIGLIP2_DECLARE_BUILD(avx2)
#endif
#if defined(SIGLIP2_HAVE_avx512)
SIGLIP2_DECLARE_BUILD(avx512)
#endif
#undef SIGLIP2_DECLARE_BUILD

namespace siglip2::cpu {
namespace {

OpTable make_table() {
  OpTable table{};
  table.name = "cpu";
  fill_host_memory_ops(table);
  const std::string isa = chosen_instruction_set();
  const bool emulated = isa == "amxemulated";
  if (isa == "baseline") baseline::fill_kernels(table);
#if defined(SIGLIP2_HAVE_avx2)
  if (isa == "avx2" || isa == "avx2vnni") avx2::fill_kernels(table);
  if (isa == "avx2vnni") avx2::use_quad_products(ProductMethod::kDot);
#endif
#if defined(SIGLIP2_HAVE_avx512)
  // One build: only products of bfloat16 and of int8 have instructions of their own.
  if (isa == "avx512" || isa == "avx512vnni" || isa == "avx512bf16" || isa == "amx" ||
      (emulated && usable("avx512bf16"))) {
    avx512::fill_kernels(table);
    if (isa == "avx512bf16") avx512::use_pair_products(ProductMethod::kDot);
    if (isa == "avx512bf16" || isa == "avx512vnni") avx512::use_quad_products(ProductMethod::kDot);
    if (isa == "amx" || emulated) {
      const ProductMethod method = emulated ? ProductMethod::kEmulatedMatrixUnit : ProductMethod::kMatrixUnit;
      avx512::use_pair_products(method);
      avx512::use_quad_products(method);
    }
    return table;
  }
#endif
  if (isa == "wide16" || emulated) wide16::fill_kernels(table);
  if (emulated) {
    wide16::use_pair_products(ProductMethod::kEmulatedMatrixUnit);
    wide16::use_quad_products(ProductMethod::kEmulatedMatrixUnit);
  }
  return table;
}

}  // namespace

const OpTable& cpu_table() {
  static const OpTable table = make_table();
  return table;
}

}  // namespace siglip2::cpu
