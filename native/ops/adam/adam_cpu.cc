// Adam on CPUs.
//
// Plan: one sweep, a vector at a time: everything an element needs is read once, changed in registers and written once.
// Tasks are chunks of elements, or of rows where gradients are sparse. The parameter moves by one rounded subtraction
// of decay and update together: 1 − decay, which may differ from 1 by less than float32 can tell, is never formed.
//
// Floor: memory. Four reads and three writes, 28 bytes a parameter; 36 with an average, 24 without a gradient.
#include "ops/adam/adam.h"

#include "cpu/kernels.h"
#include "cpu/simd/simd.h"
#include "cpu/thread_pool.h"
#include "ops/adam/adam_scalars.h"

namespace siglip2::SIGLIP2_ISA {
namespace {

constexpr std::int64_t kChunkElements = 16384;

SIGLIP2_INLINE Vec next(const AdamRunningMean& mean, Vec old, Vec fresh) {
  return multiply_add(broadcast(mean.factor), old,
                      multiply_add(broadcast(mean.low), old, broadcast(mean.rest) * fresh));
}

// What a row, or a chunk of a dense parameter, has in memory. `gradient` and `average` may be missing.
struct Span {
  float* parameter;
  const float* gradient;
  float* first;
  float* second;
  float* average;
  std::int64_t count;
};

// Lanes from i on; `read` and `write` move all of them or the last few.
template <typename Read, typename Write>
SIGLIP2_INLINE void update(const AdamScalars& step, const Span& span, std::int64_t i, Read read, Write write) {
  const Vec gradient = span.gradient == nullptr ? zero() : read(span.gradient + i) * broadcast(step.gradient_scale);
  const Vec least = broadcast(step.least);
  Vec first = next(step.first, read(span.first + i), gradient);
  Vec second = next(step.second, read(span.second + i), gradient * gradient);
  first = select_negative(max(first, zero() - first) - least, zero(), first);
  second = select_negative(second - least, zero(), second);
  write(span.first + i, first);
  write(span.second + i, second);

  const Vec old = read(span.parameter + i);
  const Vec root = multiply_add(sqrt(second), broadcast(step.root_scale), broadcast(step.epsilon));
  const Vec parameter = old - multiply_add(broadcast(step.decay), old, broadcast(step.step_size) * first / root);
  write(span.parameter + i, parameter);
  if (span.average != nullptr) write(span.average + i, next(step.average, read(span.average + i), parameter));
}

// By value: what stores through a Span cannot change stays in registers.
void update_span(AdamScalars step, Span span) {
  std::int64_t i = 0;
  for (; i + kLanes <= span.count; i += kLanes)
    update(
        step, span, i, [](const float* source) { return load(source); },
        [](float* target, Vec v) { store(target, v); });
  const int rest = static_cast<int>(span.count - i);
  if (rest > 0)
    update(
        step, span, i, [rest](const float* source) { return load_first(source, rest); },
        [rest](float* target, Vec v) { store_first(target, v, rest); });
}

void update_parameter(const OpContext& context, const AdamArgs& args) {
  const AdamScalars step = AdamScalars::of(args);
  const auto span = [&](std::int64_t first, std::int64_t count, const float* gradient) -> Span {
    return {args.parameter + first,
            gradient,
            args.first_moment + first,
            args.second_moment + first,
            args.average == nullptr ? nullptr : args.average + first,
            count};
  };
  const std::int64_t total = args.rows * args.width;
  if (args.gradient_rows == nullptr) {
    cpu::parallel_for((total + kChunkElements - 1) / kChunkElements, context.threads, [&](std::int64_t index, int) {
      const std::int64_t first = index * kChunkElements;
      const std::int64_t count = total - first < kChunkElements ? total - first : kChunkElements;
      update_span(step, span(first, count, args.gradient + first));
    });
    return;
  }
  const std::int64_t chunk = kChunkElements / args.width + 1;
  cpu::parallel_for((args.rows + chunk - 1) / chunk, context.threads, [&](std::int64_t index, int) {
    const std::int64_t last = (index + 1) * chunk < args.rows ? (index + 1) * chunk : args.rows;
    for (std::int64_t row = index * chunk; row < last; ++row) {
      const std::int64_t slot = args.gradient_rows[row];
      if (slot == AdamArgs::kUntouched) continue;
      const float* const gradient = slot == AdamArgs::kZeroGradient ? nullptr : args.gradient + slot * args.width;
      update_span(step, span(row * args.width, args.width, gradient));
    }
  });
}

}  // namespace

void adam_cpu(OpContext& context, const AdamArgs* parameters, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i)
    update_parameter(context, parameters[i]);
}

}  // namespace siglip2::SIGLIP2_ISA
