// Which of the compiled instruction-set builds this machine can run, and which one is used.
#pragma once

#include <string>
#include <vector>

namespace siglip2::cpu {

struct InstructionSet {
  const char* name;
  bool compiled;   // part of this binary
  bool supported;  // by this machine and its operating system
};

// From the plainest to the widest.
const std::vector<InstructionSet>& instruction_sets();

// Whether this binary has a build for it and this machine can run it.
bool usable(const std::string& name);

// The widest supported build, or the one that the environment variable SIGLIP2_ISA named at the first call. Throws
// ERR_SIGLIP_UNSUPPORTED if that one is unknown, not compiled in, or not supported by the machine.
const std::string& chosen_instruction_set();

}  // namespace siglip2::cpu
