// Instruction-set builds of the CPU kernels.
//
// Every ops/NAME/NAME_cpu.cc is compiled once for each instruction set, with SIGLIP2_ISA naming it ("baseline", "avx2",
// "avx512", "wide16") and the compiler's flags to match; cpu/kernel_table.cc gathers each build into a table, and
// cpu/cpu_backend.cc picks one at run time. To keep one build's code out of another's, such a file
//   - puts everything in namespace siglip2::SIGLIP2_ISA, helpers in an unnamed namespace inside it;
//   - includes no standard header that defines non-trivial inline functions or templates (<vector>, <string>,
//     <algorithm>, <functional> …): the linker would keep one copy of those, perhaps with instructions that the
//     machine lacks. <cstdint>, <cstddef>, <cstring>, <cmath> and <limits> are fine.
//
// What an instruction set adds to a build in a function or two is no build of its own: "avx2vnni" is the build "avx2",
// "avx512vnni", "avx512bf16" and "amx" are the build "avx512", some of whose functions have instructions of more (by
// the attribute `target`, or as assembly) and are called only where cpu/cpu_backend.cc said so (cpu/product_method.h).
//
// "wide16" is the portable build with vectors of sixteen lanes: it exists so that the code paths of AVX-512 are tested
// on machines without it, and is never chosen by itself. Nor is "amxemulated", with which the instructions of AMX alone
// are done in software.
#pragma once

#ifndef SIGLIP2_ISA
#error "SIGLIP2_ISA must name the instruction set that this file is compiled for"
#endif
