// The oracle: the formulas of attention.h, one query of one head at a time, in double precision. Where products are in
// bfloat16, their operands are rounded to it.
#include <cmath>
#include <vector>

#include "ops/attention/attention.h"
#include "tensor/elements.h"

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
  // The head's part of a row.
  const auto row_of = [&](const ConstMatrixView& matrix, std::int64_t row) {
    std::vector<float> values(static_cast<std::size_t>(head_dim));
    for (int i = 0; i < head_dim; ++i)
      values[static_cast<std::size_t>(i)] = element(matrix, row, column + i);
    return values;
  };
  const bool rounds = args.product_type == DType::kBFloat16;
  const auto operand = [&](float value) { return static_cast<double>(rounds ? round_to_bfloat16(value) : value); };
  using Values = std::vector<float>;
  const auto dot = [&](const Values& a, const Values& b, const auto& first, const auto& second) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i)
      sum += first(a[i]) * second(b[i]);
    return sum;
  };
  const auto exact = [](float value) { return static_cast<double>(value); };
  const auto factor = [&](double value) { return rounds ? operand(static_cast<float>(value)) : value; };
  // Scores of rounded operands are in units of log 2.
  const float log2_e = 1.442695f;
  const auto scaled = [&](float value) { return operand(rounds ? value * (args.scale * log2_e) : value); };
  const double score_factor = rounds ? std::log(2.0) : static_cast<double>(args.scale);
  std::vector<double> grad_key(static_cast<std::size_t>(problem.keys * head_dim)), grad_value(grad_key.size());
  for (std::int64_t i = 0; i < problem.queries; ++i) {
    const std::int64_t row = problem.first_query + i;
    const Values query = row_of(args.query, row), grad_output = row_of(args.grad_output, row);
    const double log_sum_exp = args.log_sum_exp.as<float>()[row * args.log_sum_exp.stride + problem.head];
    const double product = dot(grad_output, row_of(args.output, row), exact, exact);
    std::vector<double> grad_query(static_cast<std::size_t>(head_dim));
    const std::int64_t visible = args.causal && i + 1 < problem.keys ? i + 1 : problem.keys;
    for (std::int64_t j = 0; j < visible; ++j) {
      const Values key = row_of(args.key, problem.first_key + j), value = row_of(args.value, problem.first_key + j);
      const double weight = std::exp(score_factor * dot(query, key, scaled, operand) - log_sum_exp);
      const double gradient = weight * (dot(grad_output, value, operand, operand) - product);
      for (int f = 0; f < head_dim; ++f) {
        const auto at = static_cast<std::size_t>(j * head_dim + f), feature = static_cast<std::size_t>(f);
        grad_value[at] += factor(weight) * operand(grad_output[feature]);
        grad_key[at] += args.scale * factor(gradient) * operand(query[feature]);
        grad_query[feature] += args.scale * factor(gradient) * operand(key[feature]);
      }
    }
    for (int f = 0; f < head_dim; ++f)
      set_element(args.grad_query, row, column + f, grad_query[static_cast<std::size_t>(f)]);
  }
  for (std::int64_t j = 0; j < problem.keys; ++j) {
    for (int f = 0; f < head_dim; ++f) {
      const auto at = static_cast<std::size_t>(j * head_dim + f);
      set_element(args.grad_key, problem.first_key + j, column + f, grad_key[at]);
      set_element(args.grad_value, problem.first_key + j, column + f, grad_value[at]);
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
