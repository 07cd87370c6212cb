// Gradients of attention pooling on CPUs.
//
// Plan. Two steps of plain loops over rows, since all of this is a thousandth of an encoder's work. First a task is a
// sequence: it recomputes the weights, writes p and the gradients of its tokens, and leaves its share of the probe
// keys' gradients where d was. Then a task is a row of the parameters' gradients, which adds the shares of all
// sequences in order.
//
// Floor: 6·tokens·heads·width + 2·width² multiply-adds a sequence; its tokens and their gradients stay in the caches.
#include <limits>

#include "cpu/kernels.h"
#include "cpu/simd/row_math.h"
#include "cpu/simd/simd_math.h"
#include "cpu/thread_pool.h"
#include "ops/map_pool/map_pool.h"

namespace siglip2::SIGLIP2_ISA {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

constexpr std::int64_t round_up(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b * b;
}

struct Scratch {
  std::int64_t row;        // tokens, rounded up to whole vectors
  float* weights;          // [heads][row], 0 behind the tokens
  float* score_gradients;  // [heads][row]
};

void fill_zero(float* target, std::int64_t count) {
  std::memset(target, 0, static_cast<std::size_t>(count) * sizeof(float));
}

// Softmax of `count` scores, whole vectors of them, of which those that are no scores are −∞.
void soften(float* scores, std::int64_t count) {
  Vec vector_most = broadcast(-kInfinity);
  for (std::int64_t j = 0; j < count; j += kLanes)
    vector_most = max(vector_most, load(scores + j));
  float lanes[kLanes];
  store(lanes, vector_most);
  float most = lanes[0];
  for (const float lane : lanes)
    most = lane > most ? lane : most;
  Vec sum = zero();
  for (std::int64_t j = 0; j < count; j += kLanes) {
    const Vec weight = exp(load(scores + j) - broadcast(most));
    store(scores + j, weight);
    sum = sum + weight;
  }
  const Vec scale = broadcast(1.0f / reduce_add(sum));
  for (std::int64_t j = 0; j < count; j += kLanes)
    store(scores + j, load(scores + j) * scale);
}

// Weights of the tokens, and p.
void pool(const MapPoolBackwardArgs& args, const float* tokens, std::int64_t count, const Scratch& scratch,
          float* pooled) {
  const std::int64_t width = args.tokens.columns;
  for (std::int64_t j = 0; j < count; ++j) {
    for (std::int64_t head = 0; head < args.heads; ++head) {
      scratch.weights[head * scratch.row + j] =
          dot(args.probe_keys + head * width, tokens + j * args.tokens.stride, width);
    }
  }
  for (std::int64_t head = 0; head < args.heads; ++head) {
    float* const scores = scratch.weights + head * scratch.row;
    for (std::int64_t j = count; j < scratch.row; ++j)
      scores[j] = -kInfinity;
    soften(scores, scratch.row);
  }
  fill_zero(pooled, args.heads * width);
  for (std::int64_t j = 0; j < count; ++j) {
    for (std::int64_t head = 0; head < args.heads; ++head) {
      add_scaled(scratch.weights[head * scratch.row + j], tokens + j * args.tokens.stride, width,
                 pooled + head * width);
    }
  }
}

// d, and with it the gradients of the scores.
void differentiate_scores(const MapPoolBackwardArgs& args, std::int64_t s, const float* tokens, std::int64_t count,
                          const Scratch& scratch, const float* pooled, float* grad_pooled) {
  const std::int64_t width = args.tokens.columns, head_dim = width / args.heads;
  const float* const grad_output = args.grad_output.as<float>() + s * args.grad_output.stride;
  fill_zero(grad_pooled, args.heads * width);
  for (std::int64_t out = 0; out < width; ++out)
    add_scaled(grad_output[out], args.value_weight + out * width, width, grad_pooled + out / head_dim * width);
  for (std::int64_t head = 0; head < args.heads; ++head) {
    const float* const gradient = grad_pooled + head * width;
    const float product = dot(gradient, pooled + head * width, width);
    const float* const weights = scratch.weights + head * scratch.row;
    for (std::int64_t j = 0; j < count; ++j) {
      scratch.score_gradients[head * scratch.row + j] =
          weights[j] * (dot(gradient, tokens + j * args.tokens.stride, width) - product);
    }
  }
}

void run_sequence(const MapPoolBackwardArgs& args, std::int64_t s, const Scratch& scratch) {
  const std::int64_t width = args.tokens.columns;
  const std::int64_t first = args.offsets[s], count = args.offsets[s + 1] - first;
  const float* const tokens = args.tokens.as<float>() + first * args.tokens.stride;
  float* const pooled = args.pooled.as<float>() + s * args.pooled.stride;
  float* const grad_pooled = args.grad_pooled.as<float>() + s * args.grad_pooled.stride;
  if (count == 0) {
    fill_zero(pooled, args.heads * width);
    fill_zero(grad_pooled, args.heads * width);
    return;
  }
  pool(args, tokens, count, scratch, pooled);
  differentiate_scores(args, s, tokens, count, scratch, pooled, grad_pooled);
  if (args.grad_tokens.data != nullptr) {
    for (std::int64_t j = 0; j < count; ++j) {
      float* const gradient = args.grad_tokens.as<float>() + (first + j) * args.grad_tokens.stride;
      fill_zero(gradient, width);
      for (std::int64_t head = 0; head < args.heads; ++head) {
        const std::int64_t at = head * scratch.row + j;
        add_scaled(scratch.weights[at], grad_pooled + head * width, width, gradient);
        add_scaled(scratch.score_gradients[at], args.probe_keys + head * width, width, gradient);
      }
    }
  }
  if (args.grad_probe_keys == nullptr) return;
  fill_zero(grad_pooled, args.heads * width);
  for (std::int64_t j = 0; j < count; ++j) {
    for (std::int64_t head = 0; head < args.heads; ++head) {
      add_scaled(scratch.score_gradients[head * scratch.row + j], tokens + j * args.tokens.stride, width,
                 grad_pooled + head * width);
    }
  }
}

// Row `out` of the value weight's gradient, and its element of the bias'.
void add_value_row(const MapPoolBackwardArgs& args, std::int64_t out) {
  const std::int64_t width = args.tokens.columns, head = out / (width / args.heads);
  for (std::int64_t s = 0; s < args.sequences; ++s) {
    const float gradient = args.grad_output.as<float>()[s * args.grad_output.stride + out];
    add_scaled(gradient, args.pooled.as<float>() + s * args.pooled.stride + head * width, width,
               args.grad_value_weight + out * width);
    args.grad_value_bias[out] += gradient;
  }
}

void add_probe_key(const MapPoolBackwardArgs& args, std::int64_t head) {
  const std::int64_t width = args.tokens.columns;
  for (std::int64_t s = 0; s < args.sequences; ++s) {
    add_scaled(1.0f, args.grad_pooled.as<float>() + s * args.grad_pooled.stride + head * width, width,
               args.grad_probe_keys + head * width);
  }
}

}  // namespace

void map_pool_backward_cpu(OpContext& context, const MapPoolBackwardArgs& args) {
  cpu::parallel_for(args.sequences, context.threads, [&](std::int64_t s, int worker) {
    Scratch scratch;
    scratch.row = round_up(args.offsets[s + 1] - args.offsets[s], kLanes);
    const std::int64_t matrix = args.heads * scratch.row;
    scratch.weights =
        static_cast<float*>(cpu::worker_scratch(worker, static_cast<std::size_t>(2 * matrix) * sizeof(float)));
    scratch.score_gradients = scratch.weights + matrix;
    run_sequence(args, s, scratch);
  });
  if (args.grad_probe_keys == nullptr) return;
  const std::int64_t width = args.tokens.columns;
  cpu::parallel_for(width + args.heads, context.threads, [&](std::int64_t index, int) {
    if (index < width) {
      add_value_row(args, index);
    } else {
      add_probe_key(args, index - width);
    }
  });
}

}  // namespace siglip2::SIGLIP2_ISA
