#include "ops/adam/adam.h"

#include "tensor/shape_check.h"

namespace siglip2 {
namespace {

void check(const AdamArgs& args) {
  const char* const name = "adam";
  check_at_least(name, "rows", args.rows, 0);
  check_at_least(name, "width", args.width, 1);
  check_at_least(name, "step", args.step, 1);
  check_at_least(name, "slots", args.slots, 0);
  if (args.rows == 0) return;
  check_pointer(name, "parameter", args.parameter);
  check_pointer(name, "first_moment", args.first_moment);
  check_pointer(name, "second_moment", args.second_moment);
  if (args.gradient_rows == nullptr || args.slots > 0) check_pointer(name, "gradient", args.gradient);
  for (std::int64_t row = 0; args.gradient_rows != nullptr && row < args.rows; ++row) {
    const std::int64_t slot = args.gradient_rows[row];
    const std::int64_t least = args.decay == 0 ? AdamArgs::kUntouched : AdamArgs::kZeroGradient;
    if (slot >= least && slot < args.slots) continue;
    throw_shape_error(name, "gradient_rows[" + std::to_string(row) + "] must be from " + std::to_string(least) +
                                " to " + std::to_string(args.slots - 1) +
                                (args.decay == 0 ? "" : " (no row is untouched where parameters decay)") + ", got " +
                                std::to_string(slot));
  }
}

}  // namespace

void adam(const OpTable& table, OpContext& context, const AdamArgs* parameters, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i)
    check(parameters[i]);
  table.adam(context, parameters, count);
}

}  // namespace siglip2
