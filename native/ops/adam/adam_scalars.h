// The scalars of one step of Adam, derived in double precision and rounded to what kernels compute with.
#pragma once

#include <cmath>

#include "ops/adam/adam.h"

namespace siglip2 {

// A running mean, factor · old + (1 − factor) · fresh, as (factor + low) · old + rest · fresh. The factor is a sum of
// two numbers: rounded to float32, 0.999 and 1 − 0.999 would no longer add up to 1, and the mean would be wrong by that
// share of 0.001.
struct AdamRunningMean {
  float factor, low, rest;

  static AdamRunningMean of(double factor) {
    const auto rounded = static_cast<float>(factor);
    return {rounded, static_cast<float>(factor - static_cast<double>(rounded)), static_cast<float>(1 - factor)};
  }
};

struct AdamScalars {
  AdamRunningMean first, second, average;
  float gradient_scale;
  float step_size;   // divided by 1 − β₁ᵗ
  float root_scale;  // 1/√(1 − β₂ᵗ)
  float epsilon;
  float decay;
  float least;  // smaller moments become 0

  static AdamScalars of(const AdamArgs& args) {
    const auto step = static_cast<double>(args.step);
    return {AdamRunningMean::of(args.beta1),
            AdamRunningMean::of(args.beta2),
            AdamRunningMean::of(args.average_decay),
            static_cast<float>(args.gradient_scale),
            static_cast<float>(args.step_size / (1 - std::pow(args.beta1, step))),
            static_cast<float>(1 / std::sqrt(1 - std::pow(args.beta2, step))),
            static_cast<float>(args.epsilon),
            static_cast<float>(args.decay),
            args.epsilon >= 1e-12 ? 0x1p-126f : 0.0f};
  }
};

}  // namespace siglip2
