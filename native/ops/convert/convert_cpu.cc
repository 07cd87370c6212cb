// Changes of element type on CPUs: chunks of rows in parallel, a row at a time through the conversions of
// tensor/convert.h, which compilers make vectors of.
//
// Floor: one read and one write.
#include "ops/convert/convert.h"

#include <algorithm>

#include "cpu/kernels.h"
#include "cpu/thread_pool.h"
#include "tensor/convert.h"

namespace siglip2::SIGLIP2_ISA {
namespace {

constexpr std::int64_t kChunkElements = 16384;

template <typename View>
auto* row_of(const View& view, std::int64_t row) {
  return view.template as<char>() + row * view.stride * static_cast<std::int64_t>(size_of(view.dtype));
}

}  // namespace

void convert_cpu(OpContext& context, const ConvertArgs& args) {
  const auto columns = static_cast<std::size_t>(args.input.columns);
  const std::int64_t chunk = std::max<std::int64_t>(1, kChunkElements / args.input.columns);
  const std::int64_t chunks = (args.input.rows + chunk - 1) / chunk;
  cpu::parallel_for(chunks, context.threads, [&](std::int64_t index, int) {
    const std::int64_t end = std::min(args.input.rows, (index + 1) * chunk);
    for (std::int64_t row = index * chunk; row < end; ++row) {
      const char* const input = row_of(args.input, row);
      char* const output = row_of(args.output, row);
      if (args.input.dtype == DType::kFloat32) {
        narrow_from_float(args.output.dtype, reinterpret_cast<const float*>(input), output, columns);
      } else if (args.output.dtype == DType::kFloat32) {
        widen_to_float(args.input.dtype, input, reinterpret_cast<float*>(output), columns);
      } else {
        std::memcpy(output, input, columns * size_of(args.input.dtype));
      }
    }
  });
}

}  // namespace siglip2::SIGLIP2_ISA
