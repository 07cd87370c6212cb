// The oracle: one query of one head at a time, all scores kept, in double precision. Where products are in bfloat16,
// their operands are rounded to it: the weights relative to the largest of all, while an implementation may round them
// relative to the largest so far.
#include <cmath>
#include <limits>
#include <vector>

#include "ops/attention/attention.h"
#include "tensor/elements.h"

namespace siglip2 {
namespace {

struct Problem {
  const AttentionArgs& args;
  std::int64_t head;
  std::int64_t first_key;
  std::int64_t keys;
};

void attend(const Problem& problem, std::int64_t query_row) {
  const AttentionArgs& args = problem.args;
  const std::int64_t column = problem.head * args.head_dim;

  const bool rounds = args.product_type == DType::kBFloat16;
  const auto operand = [&](float value) { return static_cast<double>(rounds ? round_to_bfloat16(value) : value); };
  // Scores of rounded operands are in units of log 2 already.
  const float log2_e = 1.442695f;
  const float query_factor = rounds ? args.scale * log2_e : 1.0f;
  const double score_factor = rounds ? std::log(2.0) : static_cast<double>(args.scale);
  std::vector<double> scores(static_cast<std::size_t>(problem.keys));
  double most = -std::numeric_limits<double>::infinity();
  for (std::int64_t j = 0; j < problem.keys; ++j) {
    double dot = 0;
    for (int i = 0; i < args.head_dim; ++i)
      dot += operand(element(args.query, query_row, column + i) * query_factor) *
             operand(element(args.key, problem.first_key + j, column + i));
    scores[static_cast<std::size_t>(j)] = dot * score_factor;
    if (!(scores[static_cast<std::size_t>(j)] <= most)) most = scores[static_cast<std::size_t>(j)];
  }
  double total = 0;
  for (double& score : scores) {
    score = std::exp(score - most);
    total += score;
    if (rounds) score = operand(static_cast<float>(score));
  }
  for (int i = 0; i < args.head_dim; ++i) {
    double sum = 0;
    for (std::int64_t j = 0; j < problem.keys; ++j)
      sum += scores[static_cast<std::size_t>(j)] * operand(element(args.value, problem.first_key + j, column + i));
    set_element(args.output, query_row, column + i, problem.keys == 0 ? 0.0 : sum / total);
  }
  if (args.log_sum_exp.data != nullptr) {
    args.log_sum_exp.as<float>()[query_row * args.log_sum_exp.stride + problem.head] =
        problem.keys == 0 ? -std::numeric_limits<float>::infinity() : static_cast<float>(most + std::log(total));
  }
}

}  // namespace

void attention_reference(OpContext& context, const AttentionArgs& args) {
  for (std::int64_t s = 0; s < args.sequences; ++s) {
    const std::int64_t queries = args.query_offsets[s + 1] - args.query_offsets[s];
    const std::int64_t keys = args.key_offsets[s + 1] - args.key_offsets[s];
    for (std::int64_t head = 0; head < args.heads; ++head) {
      for (std::int64_t i = 0; i < queries; ++i) {
        const std::int64_t visible = args.causal && i + 1 < keys ? i + 1 : keys;
        attend({args, head, args.key_offsets[s], visible}, args.query_offsets[s] + i);
      }
    }
  }
}

}  // namespace siglip2
