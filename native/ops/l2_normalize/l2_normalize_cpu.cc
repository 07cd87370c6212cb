// Unit rows on CPUs.
//
// Plan: the squares of a row are summed in double precision, in eight partial sums that the compiler keeps in vectors,
// and the row, then in the L1 cache, is scaled in double precision too, so that tiny and huge rows lose nothing.
//
// Floor: one read and one write.
#include "ops/l2_normalize/l2_normalize.h"

#include <cmath>

#include "cpu/kernels.h"
#include "cpu/thread_pool.h"

namespace siglip2::SIGLIP2_ISA {
namespace {

constexpr std::int64_t kChunkElements = 16384;
constexpr int kSums = 8;

void normalize_row(const float* input, float* output, std::int64_t width) {
  double sums[kSums] = {};
  std::int64_t i = 0;
  for (; i + kSums <= width; i += kSums) {
    for (int j = 0; j < kSums; ++j)
      sums[j] += static_cast<double>(input[i + j]) * static_cast<double>(input[i + j]);
  }
  for (; i < width; ++i)
    sums[0] += static_cast<double>(input[i]) * static_cast<double>(input[i]);
  double squares = 0;
  for (int j = 0; j < kSums; ++j)
    squares += sums[j];
  const double scale = squares == 0 ? 1.0 : 1.0 / std::sqrt(squares);
  for (i = 0; i < width; ++i)
    output[i] = static_cast<float>(static_cast<double>(input[i]) * scale);
}

}  // namespace

void l2_normalize_cpu(OpContext& context, const L2NormalizeArgs& args) {
  const std::int64_t rows = args.input.rows;
  const std::int64_t chunk = kChunkElements / args.input.columns + 1;
  cpu::parallel_for((rows + chunk - 1) / chunk, context.threads, [&](std::int64_t index, int) {
    const std::int64_t last = (index + 1) * chunk < rows ? (index + 1) * chunk : rows;
    for (std::int64_t row = index * chunk; row < last; ++row) {
      normalize_row(args.input.as<float>() + row * args.input.stride,
                    args.output.as<float>() + row * args.output.stride, args.input.columns);
    }
  });
}

}  // namespace siglip2::SIGLIP2_ISA
