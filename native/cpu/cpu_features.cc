#include "cpu/cpu_features.h"

#include <cstdlib>

#include "tensor/error.h"

namespace siglip2::cpu {
namespace {

#if defined(__x86_64__) && defined(__GNUC__)
bool has_avx2() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
bool has_avx512() {
  __builtin_cpu_init();
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}
bool has_avx512vnni() {
  return has_avx512() && __builtin_cpu_supports("avx512vnni");
}
bool has_avx512bf16() {
  return has_avx512vnni() && __builtin_cpu_supports("avx512bf16");
}
#else
bool has_avx2() {
  return false;
}
bool has_avx512() {
  return false;
}
bool has_avx512vnni() {
  return false;
}
bool has_avx512bf16() {
  return false;
}
#endif

#if defined(SIGLIP2_HAVE_avx2)
constexpr bool kCompiledAvx2 = true;
#else
constexpr bool kCompiledAvx2 = false;
#endif
#if defined(SIGLIP2_HAVE_avx512)
constexpr bool kCompiledAvx512 = true;
#else
constexpr bool kCompiledAvx512 = false;
#endif

}  // namespace

const std::vector<InstructionSet>& instruction_sets() {
  static const auto* const sets = new std::vector<InstructionSet>{
      {"wide16", true, true},  // for tests: before "baseline", so that it is never the widest
      {"baseline", true, true},
      {"avx2", kCompiledAvx2, has_avx2()},
      {"avx512", kCompiledAvx512, has_avx512()},
      {"avx512vnni", kCompiledAvx512, has_avx512vnni()},
      {"avx512bf16", kCompiledAvx512, has_avx512bf16()},
  };
  return *sets;
}

std::string chosen_instruction_set() {
  const char* const wanted = std::getenv("SIGLIP2_ISA");
  std::string usable;
  std::string best;
  for (const InstructionSet& set : instruction_sets()) {
    if (!set.compiled || !set.supported) continue;
    usable += usable.empty() ? set.name : std::string(", ") + set.name;
    best = set.name;
    if (wanted != nullptr && best == wanted) return best;
  }
  if (wanted != nullptr && *wanted != '\0')
    throw Error(kErrorUnsupported,
                "SIGLIP2_ISA: expected one of " + usable + " on this machine, got \"" + std::string(wanted) + "\"");
  return best;
}

}  // namespace siglip2::cpu
