#include "nn/parameters.h"

namespace siglip2 {
namespace {

constexpr std::int64_t kChannels = 3;

// Calls move(index in the convolution, index in the linear weight) for every element.
template <typename Move>
void match_elements(std::int64_t out_features, int patch, Move move) {
  const std::int64_t area = static_cast<std::int64_t>(patch) * patch;
  for (std::int64_t o = 0; o < out_features; ++o)
    for (std::int64_t channel = 0; channel < kChannels; ++channel)
      for (std::int64_t position = 0; position < area; ++position)
        move((o * kChannels + channel) * area + position, (o * area + position) * kChannels + channel);
}

}  // namespace

void convolution_to_linear(const float* convolution, std::int64_t out_features, int patch, float* linear) {
  match_elements(out_features, patch, [&](std::int64_t from, std::int64_t to) { linear[to] = convolution[from]; });
}

void linear_to_convolution(const float* linear, std::int64_t out_features, int patch, float* convolution) {
  match_elements(out_features, patch, [&](std::int64_t to, std::int64_t from) { convolution[to] = linear[from]; });
}

}  // namespace siglip2
