// Random initial values of parameters.
//
// Element i of a parameter depends on (seed, stream, i) alone, so neither the number of threads nor the order in which
// parameters are made shows in the values. `stream` numbers the parameters of a model. The generator is Philox4x32-10
// (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): 128 random bits for a key, the seed, and a
// counter, made of ⌊i/2⌋ (low 64 bits) and the stream (high 64 bits); an element takes 64 of them. Values are computed
// in double precision and rounded once.
#pragma once

#include <cstdint>

namespace siglip2 {

struct Initialization {
  enum class Kind {
    kConstant,         // scale
    kUniform,          // from −scale to scale, without scale itself
    kNormal,           // mean 0, standard deviation `scale`
    kTruncatedNormal,  // a standard normal value between −2 and 2, times `scale` (its standard deviation is 0.88 ·
                       // scale)
  };
  Kind kind = Kind::kConstant;
  double scale = 0;
};

// Fills values[0 … count − 1], in host memory. `scale` must be finite, and not negative but for a constant.
void initialize(const Initialization& initialization, std::uint64_t seed, std::uint64_t stream, float* values,
                std::int64_t count, int threads);

}  // namespace siglip2
