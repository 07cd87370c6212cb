// The oracle: the formula, element by element, in double precision.
#include <cmath>

#include "ops/adam/adam.h"

namespace siglip2 {
namespace {

void update(const AdamArgs& args) {
  const double correction1 = 1 - std::pow(args.beta1, static_cast<double>(args.step));
  const double correction2 = 1 - std::pow(args.beta2, static_cast<double>(args.step));
  for (std::int64_t i = 0; i < args.rows * args.width; ++i) {
    const std::int64_t row = i / args.width;
    const std::int64_t slot = args.gradient_rows == nullptr ? row : args.gradient_rows[row];
    if (slot == AdamArgs::kUntouched) continue;
    const double gradient =
        slot == AdamArgs::kZeroGradient ? 0 : args.gradient[slot * args.width + i % args.width] * args.gradient_scale;
    const double first = args.beta1 * args.first_moment[i] + (1 - args.beta1) * gradient;
    const double second = args.beta2 * args.second_moment[i] + (1 - args.beta2) * gradient * gradient;
    const double update = first / correction1 / (std::sqrt(second / correction2) + args.epsilon);
    const double parameter = args.parameter[i] - args.decay * args.parameter[i] - args.step_size * update;
    args.first_moment[i] = static_cast<float>(first);
    args.second_moment[i] = static_cast<float>(second);
    args.parameter[i] = static_cast<float>(parameter);
    if (args.average != nullptr)
      args.average[i] = static_cast<float>(args.average_decay * args.average[i] + (1 - args.average_decay) * parameter);
  }
}

}  // namespace

void adam_reference(OpContext& context, const AdamArgs* parameters, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i)
    update(parameters[i]);
}

}  // namespace siglip2
