// One step of Adam (arXiv 1412.6980) with decoupled weight decay, on parameters, in one pass over their memory:
//
//   g = gradient · gradient_scale
//   m ← β₁ m + (1 − β₁) g,   v ← β₂ v + (1 − β₂) g²
//   θ ← θ − decay · θ − step_size · (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + epsilon)
//   average ← average_decay · average + (1 − average_decay) · θ
//
// Both conventions of decay are the caller's: torch.optim.AdamW has decay = learning rate · weight_decay, big_vision
// decay = schedule · weight_decay, not multiplied by the learning rate.
//
//   parameter, first_moment, second_moment   [rows, width]  float32, dense, updated in place
//   gradient   [rows, width], or [slots, width] with `gradient_rows`   float32, dense
//   average    [rows, width]  float32, updated in place; optional
//   gradient_rows   [rows] in host memory, optional, for sparse gradients: the row of `gradient` that belongs to each
//   row
//                   of the parameter; kZeroGradient: its gradient is 0; kUntouched: its gradient has always been 0 and
//                   it does not decay, so the row and its moments stay as they are (exactly what the formula gives)
//
// Computed in float32 from scalars in double precision; factors of the moments and of the average are not rounded to
// float32, where 1 − β would lose its digits. With an epsilon of at least 10⁻¹², where it cannot be seen in the
// parameter, moments too small for a normal float32 become 0: they would never decay to it, and slow many processors.
#pragma once

#include <cstdint>

#include "backend/op_table.h"
#include "tensor/matrix_view.h"

namespace siglip2 {

struct AdamArgs {
  static constexpr std::int32_t kZeroGradient = -1;
  static constexpr std::int32_t kUntouched = -2;

  float* parameter = nullptr;
  const float* gradient = nullptr;
  float* first_moment = nullptr;
  float* second_moment = nullptr;
  float* average = nullptr;
  std::int64_t rows = 0;
  std::int64_t width = 0;
  const std::int32_t* gradient_rows = nullptr;
  std::int64_t slots = 0;  // rows of `gradient` with `gradient_rows`

  std::int64_t step = 1;  // t, from 1
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double step_size = 0;
  double decay = 0;
  double gradient_scale = 1;
  double average_decay = 0;
};

// Of `count` parameters, whose memory must not overlap; empty ones are allowed.
void adam(const OpTable& table, OpContext& context, const AdamArgs* parameters, std::int64_t count);
inline void adam(const OpTable& table, OpContext& context, const AdamArgs& args) {
  adam(table, context, &args, 1);
}

void adam_reference(OpContext& context, const AdamArgs* parameters, std::int64_t count);

}  // namespace siglip2
