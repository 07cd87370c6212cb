// Text embeddings on CPUs.
//
// Plan: each row is one row of the table, widened vector by vector, plus its position; rows in chunks for the threads.
//
// Floor: one read of the chosen rows and one write. The table is mapped from a file, so the first touch of a row may
// wait for the disk.
#include "ops/token_embedding/token_embedding.h"

#include "cpu/kernels.h"
#include "cpu/simd/simd.h"
#include "cpu/thread_pool.h"

namespace siglip2::SIGLIP2_ISA {
namespace {

constexpr std::int64_t kChunkElements = 16384;

Vec load_widened(DType dtype, const void* source) {
  if (dtype == DType::kBFloat16) return load_bfloat16(source);
  if (dtype == DType::kFloat16) return load_float16(source);
  float values[kLanes];
  std::memcpy(values, source, sizeof(values));
  return load(values);
}

void embed_row(DType dtype, const char* source, const float* position, float* output, std::int64_t width) {
  const std::int64_t bytes = dtype == DType::kFloat32 ? 4 : 2;
  std::int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    store(output + i, load_widened(dtype, source + i * bytes) + load(position + i));
  }
  if (i < width) {
    const int rest = static_cast<int>(width - i);
    char values[4 * kLanes] = {};
    std::memcpy(values, source + i * bytes, static_cast<std::size_t>(rest * bytes));
    store_first(output + i, load_widened(dtype, values) + load_first(position + i, rest), rest);
  }
}

}  // namespace

void token_embedding_cpu(OpContext& context, const TokenEmbeddingArgs& args) {
  const std::int64_t rows = args.output.rows;
  const std::int64_t width = args.output.columns;
  const std::int64_t row_bytes = args.table.stride * (args.table.dtype == DType::kFloat32 ? 4 : 2);
  const std::int64_t chunk = kChunkElements / width + 1;
  cpu::parallel_for((rows + chunk - 1) / chunk, context.threads, [&](std::int64_t index, int) {
    const std::int64_t last = (index + 1) * chunk < rows ? (index + 1) * chunk : rows;
    for (std::int64_t row = index * chunk; row < last; ++row) {
      embed_row(args.table.dtype, static_cast<const char*>(args.table.data) + args.ids[row] * row_bytes,
                args.positions + row % args.length * width, args.output.as<float>() + row * args.output.stride, width);
    }
  });
}

}  // namespace siglip2::SIGLIP2_ISA
