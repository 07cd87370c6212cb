// The oracle: the formulas of attention.h, one query of one head at a time, in double precision.
#include <cmath>
#include <vector>

#include "ops/attention/attention.h"

namespace siglip2 {
namespace {

// One head of one sequence.
struct Problem {
  std::int64_t head;
  std::int64_t first_query;
  std::int64_t queries;
  std::int64_t first_key;
  std::int64_t keys;
};

void differentiate(const AttentionBackwardArgs& args, const Problem& problem) {
  const int head_dim = args.head_dim;
  const std::int64_t column = problem.head * head_dim;
  const auto row_of = [&](const auto& matrix, std::int64_t row) {
    return matrix.template as<float>() + row * matrix.stride + column;
  };
  const auto dot = [&](const float* a, const float* b) {
    double sum = 0;
    for (int i = 0; i < head_dim; ++i)
      sum += static_cast<double>(a[i]) * b[i];
    return sum;
  };
  std::vector<double> grad_key(static_cast<std::size_t>(problem.keys * head_dim)), grad_value(grad_key.size());
  for (std::int64_t i = 0; i < problem.queries; ++i) {
    const std::int64_t row = problem.first_query + i;
    const float* const query = row_of(args.query, row);
    const float* const grad_output = row_of(args.grad_output, row);
    const double log_sum_exp = args.log_sum_exp.as<float>()[row * args.log_sum_exp.stride + problem.head];
    const double product = dot(grad_output, row_of(args.output, row));
    std::vector<double> grad_query(static_cast<std::size_t>(head_dim));
    const std::int64_t visible = args.causal && i + 1 < problem.keys ? i + 1 : problem.keys;
    for (std::int64_t j = 0; j < visible; ++j) {
      const float* const key = row_of(args.key, problem.first_key + j);
      const double weight = std::exp(args.scale * dot(query, key) - log_sum_exp);
      const double gradient = weight * (dot(grad_output, row_of(args.value, problem.first_key + j)) - product);
      for (int f = 0; f < head_dim; ++f) {
        const auto at = static_cast<std::size_t>(j * head_dim + f);
        grad_value[at] += weight * grad_output[f];
        grad_key[at] += args.scale * gradient * query[f];
        grad_query[static_cast<std::size_t>(f)] += args.scale * gradient * key[f];
      }
    }
    for (int f = 0; f < head_dim; ++f)
      row_of(args.grad_query, row)[f] = static_cast<float>(grad_query[static_cast<std::size_t>(f)]);
  }
  for (std::int64_t j = 0; j < problem.keys; ++j) {
    for (int f = 0; f < head_dim; ++f) {
      const auto at = static_cast<std::size_t>(j * head_dim + f);
      row_of(args.grad_key, problem.first_key + j)[f] = static_cast<float>(grad_key[at]);
      row_of(args.grad_value, problem.first_key + j)[f] = static_cast<float>(grad_value[at]);
    }
  }
}

}  // namespace

void attention_backward_reference(OpContext& context, const AttentionBackwardArgs& args) {
  for (std::int64_t s = 0; s < args.sequences; ++s) {
    for (std::int64_t head = 0; head < args.heads; ++head) {
      differentiate(args, {head, args.query_offsets[s], args.query_offsets[s + 1] - args.query_offsets[s],
                           args.key_offsets[s], args.key_offsets[s + 1] - args.key_offsets[s]});
    }
  }
}

}  // namespace siglip2
