#include "train/initialize.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "cpu/thread_pool.h"

namespace siglip2 {
namespace {

constexpr std::int64_t kChunkPairs = 4096;

// Philox4x32-10 as two words of 64 bits.
std::array<std::uint64_t, 2> philox(std::uint64_t seed, std::uint64_t stream, std::uint64_t index) {
  constexpr std::uint64_t kMultiplier0 = 0xd2511f53, kMultiplier1 = 0xcd9e8d57;
  constexpr std::uint32_t kWeyl0 = 0x9e3779b9, kWeyl1 = 0xbb67ae85;
  constexpr int kRounds = 10;
  const auto low = [](std::uint64_t word) { return static_cast<std::uint32_t>(word); };
  const auto high = [](std::uint64_t word) { return static_cast<std::uint32_t>(word >> 32); };
  std::uint32_t counter[4] = {low(index), high(index), low(stream), high(stream)};
  std::uint32_t key[2] = {low(seed), high(seed)};
  for (int round = 0; round < kRounds; ++round) {
    const std::uint64_t product0 = kMultiplier0 * counter[0], product1 = kMultiplier1 * counter[2];
    counter[0] = high(product1) ^ counter[1] ^ key[0];
    counter[1] = low(product1);
    counter[2] = high(product0) ^ counter[3] ^ key[1];
    counter[3] = low(product0);
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  const auto join = [](std::uint32_t lower, std::uint32_t upper) {
    return static_cast<std::uint64_t>(upper) << 32 | lower;
  };
  return {join(counter[0], counter[1]), join(counter[2], counter[3])};
}

// The upper 53 bits of a word as a number in [0, 1).
double unit(std::uint64_t word) {
  return static_cast<double>(word >> 11) * 0x1p-53;
}

float uniform(std::uint64_t word, double bound) {
  const auto top = static_cast<float>(bound);
  // Rounding to float32 may reach the bound, which is excluded.
  return std::min(static_cast<float>((2 * unit(word) - 1) * bound), std::nextafter(top, -top));
}

// The x with erf(x) = y, for |y| ≤ erf(√2): a first guess good to two or three digits (Winitzki, 2008), then two steps
// of Halley's method, which triples the digits.
double inverse_error_function(double y) {
  constexpr double kShape = 0.147;
  const double log = std::log1p(-y * y);
  const double half = 2 / (std::numbers::pi * kShape) + log / 2;
  double x = std::copysign(std::sqrt(std::sqrt(half * half - log / kShape) - half), y);
  for (int step = 0; step < 2; ++step) {
    const double newton = (std::erf(x) - y) * std::exp(x * x) / (2 * std::numbers::inv_sqrtpi);
    x -= newton / (1 + x * newton);
  }
  return x;
}

float truncated_normal(std::uint64_t word, double scale) {
  const double probability = unit(word) + 0x1p-54;  // symmetric about ½
  const double x = std::numbers::sqrt2 * inverse_error_function((2 * probability - 1) * std::erf(std::numbers::sqrt2));
  return static_cast<float>(std::clamp(x, -2.0, 2.0) * scale);
}

// Two values for two random words.
std::array<float, 2> values_of(const Initialization& initialization, const std::array<std::uint64_t, 2>& words) {
  const double scale = initialization.scale;
  switch (initialization.kind) {
    case Initialization::Kind::kUniform:
      return {uniform(words[0], scale), uniform(words[1], scale)};
    case Initialization::Kind::kTruncatedNormal:
      return {truncated_normal(words[0], scale), truncated_normal(words[1], scale)};
    case Initialization::Kind::kNormal: {
      // Box and Muller, 1958; 1 − unit(…) is in (0, 1].
      const double radius = scale * std::sqrt(-2 * std::log(1 - unit(words[0])));
      const double angle = 2 * std::numbers::pi * unit(words[1]);
      return {static_cast<float>(radius * std::cos(angle)), static_cast<float>(radius * std::sin(angle))};
    }
    case Initialization::Kind::kConstant:
      break;
  }
  return {static_cast<float>(scale), static_cast<float>(scale)};
}

}  // namespace

void initialize(const Initialization& initialization, std::uint64_t seed, std::uint64_t stream, float* values,
                std::int64_t count, int threads) {
  const bool random = initialization.kind != Initialization::Kind::kConstant;
  const std::int64_t pairs = (count + 1) / 2;
  cpu::parallel_for((pairs + kChunkPairs - 1) / kChunkPairs, threads, [&](std::int64_t chunk, int) {
    for (std::int64_t pair = chunk * kChunkPairs; pair < std::min(pairs, (chunk + 1) * kChunkPairs); ++pair) {
      std::array<std::uint64_t, 2> words = {};
      if (random) words = philox(seed, stream, static_cast<std::uint64_t>(pair));
      const std::array<float, 2> made = values_of(initialization, words);
      std::copy_n(made.begin(), std::min<std::int64_t>(2, count - 2 * pair), values + 2 * pair);
    }
  });
}

}  // namespace siglip2
