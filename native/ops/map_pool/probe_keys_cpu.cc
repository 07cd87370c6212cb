// The probe's keys and their gradients on CPUs.
//
// Plan. Everything is a product of a width × width matrix and a vector, in double precision; parameters of a model, so
// once a step. Forward, a task is a head. Backward, a task is a row of the matrices, whose gradients need nothing else;
// the gradient of the probe needs all rows, so a chunk of them is done at a time and its columns are summed after it.
//
// Floor: one read of both matrices, and of both gradients with a write.
#include <cmath>

#include "cpu/kernels.h"
#include "cpu/thread_pool.h"
#include "ops/map_pool/map_pool.h"

namespace siglip2::SIGLIP2_ISA {
namespace {

constexpr std::int64_t kChunkRows = 256;
constexpr std::int64_t kTaskColumns = 64;

double scale_of(const ProbeKeysArgs& args) {
  return 1.0 / std::sqrt(static_cast<double>(args.width / args.heads));
}

// Σ a[i]·b[i], as several sums so that they need not wait for each other.
double double_dot(const float* a, const float* b, std::int64_t count) {
  double sums[8] = {};
  std::int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    for (int k = 0; k < 8; ++k)
      sums[k] += static_cast<double>(a[i + k]) * b[i + k];
  }
  for (; i < count; ++i)
    sums[0] += static_cast<double>(a[i]) * b[i];
  return ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
}

// Row `row` of W_q probe + b_q.
double query_of(const ProbeKeysArgs& args, std::int64_t row) {
  return args.query_bias[row] + double_dot(args.query_weight + row * args.width, args.probe, args.width);
}

void add_scaled(double factor, const float* source, std::int64_t count, float* target) {
  for (std::int64_t i = 0; i < count; ++i)
    target[i] = static_cast<float>(target[i] + factor * source[i]);
}

// Gradients of everything that belongs to row `row`; returns that of its query.
double differentiate_row(const ProbeKeysBackwardArgs& args, std::int64_t row) {
  const ProbeKeysArgs& forward = args.forward;
  const std::int64_t width = forward.width, at = row * width;
  const float* const grad_probe_key = args.grad_probe_keys + row / (width / forward.heads) * width;
  const double scale = scale_of(forward);
  const double grad_query = scale * double_dot(forward.key_weight + at, grad_probe_key, width);
  if (args.grad_key_weight != nullptr) {
    add_scaled(scale * query_of(forward, row), grad_probe_key, width, args.grad_key_weight + at);
  }
  if (args.grad_query_weight != nullptr) add_scaled(grad_query, forward.probe, width, args.grad_query_weight + at);
  if (args.grad_query_bias != nullptr) {
    args.grad_query_bias[row] = static_cast<float>(args.grad_query_bias[row] + grad_query);
  }
  return grad_query;
}

}  // namespace

void probe_keys_cpu(OpContext& context, const ProbeKeysArgs& args) {
  const std::int64_t width = args.width, head_dim = width / args.heads;
  cpu::parallel_for(args.heads, context.threads, [&](std::int64_t head, int worker) {
    auto* const sums =
        static_cast<double*>(cpu::worker_scratch(worker, static_cast<std::size_t>(width) * sizeof(double)));
    for (std::int64_t i = 0; i < width; ++i)
      sums[i] = 0;
    for (std::int64_t row = head * head_dim; row < (head + 1) * head_dim; ++row) {
      const double query = scale_of(args) * query_of(args, row);
      const float* const key = args.key_weight + row * width;
      for (std::int64_t i = 0; i < width; ++i)
        sums[i] += query * key[i];
    }
    for (std::int64_t i = 0; i < width; ++i)
      args.probe_keys[head * width + i] = static_cast<float>(sums[i]);
  });
}

void probe_keys_backward_cpu(OpContext& context, const ProbeKeysBackwardArgs& args) {
  const std::int64_t width = args.forward.width;
  double grad_query[kChunkRows];
  for (std::int64_t first = 0; first < width; first += kChunkRows) {
    const std::int64_t rows = width - first < kChunkRows ? width - first : kChunkRows;
    cpu::parallel_for(rows, context.threads,
                      [&](std::int64_t row, int) { grad_query[row] = differentiate_row(args, first + row); });
    if (args.grad_probe == nullptr) continue;
    cpu::parallel_for((width + kTaskColumns - 1) / kTaskColumns, context.threads, [&](std::int64_t index, int) {
      const std::int64_t column = index * kTaskColumns;
      const std::int64_t columns = width - column < kTaskColumns ? width - column : kTaskColumns;
      double sums[kTaskColumns] = {};
      for (std::int64_t row = 0; row < rows; ++row) {
        const float* const weight = args.forward.query_weight + (first + row) * width + column;
        for (std::int64_t i = 0; i < columns; ++i)
          sums[i] += grad_query[row] * weight[i];
      }
      for (std::int64_t i = 0; i < columns; ++i)
        args.grad_probe[column + i] = static_cast<float>(args.grad_probe[column + i] + sums[i]);
    });
  }
}

}  // namespace siglip2::SIGLIP2_ISA
