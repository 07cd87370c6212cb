// GELU in its tanh form and its derivative in double precision, for the oracles; see ops/gelu/gelu.h.
#pragma once

#include <cmath>

namespace siglip2 {

// ½(1 + tanh(u)) = 1/(1 + e^−2u), without the cancellation at large negative u; −∞ gives −0, the limit from above.
inline double gelu_tanh_double(double z) {
  const double u = std::sqrt(2.0 / 3.14159265358979323846) * (z + 0.044715 * z * z * z);
  return std::isinf(z) && z < 0 ? -0.0 : z / (1.0 + std::exp(-2.0 * u));
}

inline double gelu_tanh_derivative_double(double z) {
  const double factor = std::sqrt(2.0 / 3.14159265358979323846);
  const double u = factor * (z + 0.044715 * z * z * z);
  const double slope = factor * (1.0 + 0.134145 * z * z);
  // With p = ½(1 + tanh u) = 1/(1 + e^−2u), ½(1 − tanh² u) is 2p(1 − p). At infinities it vanishes faster than z u′
  // grows.
  const double p = 1.0 / (1.0 + std::exp(-2.0 * u)), rest = 1.0 / (1.0 + std::exp(2.0 * u));
  return std::isinf(z) ? p : p + 2.0 * z * slope * p * rest;
}

}  // namespace siglip2
