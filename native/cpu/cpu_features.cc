#include "cpu/cpu_features.h"

#include <cstdlib>

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

#include "tensor/error.h"

namespace siglip2::cpu {
namespace {

#if defined(__x86_64__) && defined(__GNUC__)
bool has_avx2() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
bool has_avx2vnni() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kAvxVnni = 1u << 4;
  return has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & kAvxVnni) != 0;
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
bool has_avx2vnni() {
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

#if defined(__x86_64__) && defined(__GNUC__) && defined(__linux__)
// AMX with both kinds of products, and registers that the system saves and lets this process use: it asks for them,
// since Linux gives their eight kilobytes to no process that did not.
bool has_amx() {
  if (!has_avx512bf16()) return false;
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kBFloat16 = 1u << 22, kTiles = 1u << 24, kInt8 = 1u << 25, kAll = kBFloat16 | kTiles | kInt8;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kAll) != kAll) return false;
  unsigned enabled = 0, upper = 0;
  constexpr unsigned kTileState = 3u << 17;
  asm volatile("xgetbv" : "=a"(enabled), "=d"(upper) : "c"(0));
  if ((enabled & kTileState) != kTileState) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#else
bool has_amx() {
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
      // For tests: before "baseline", so that they are never the widest.
      {"wide16", true, true},
      {"amxemulated", true, true},
      {"baseline", true, true},
      {"avx2", kCompiledAvx2, has_avx2()},
      {"avx2vnni", kCompiledAvx2, has_avx2vnni()},
      {"avx512", kCompiledAvx512, has_avx512()},
      {"avx512vnni", kCompiledAvx512, has_avx512vnni()},
      {"avx512bf16", kCompiledAvx512, has_avx512bf16()},
      {"amx", kCompiledAvx512, has_amx()},
  };
  return *sets;
}

bool usable(const std::string& name) {
  for (const InstructionSet& set : instruction_sets())
    if (name == set.name) return set.compiled && set.supported;
  return false;
}

namespace {

std::string choose_instruction_set() {
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

}  // namespace

const std::string& chosen_instruction_set() {
  static const std::string chosen = choose_instruction_set();
  return chosen;
}

}  // namespace siglip2::cpu
