// From bytes to normalised values, rounded once from double. Included by kernels only (see cpu/isa.h).
//
// The values stand in a table. Reading it takes two loads and a store a value; most tables can be had from a formula
// that works on whole vectors, in float32 and yet rounded once:
//
//   value = (byte · scale + shift) + (byte · rest of scale + rest of shift)
//
// where scale and shift are whole multiples of a unit so large that the first bracket is exact (24 bits), and the rests
// are what they lack, about 2^-24 of them. Rounded are the second bracket, which hardly matters, and the sum. Now and
// then it does matter: where one of the 768 values is not that of the table, the table is read.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "cpu/isa.h"
#include "ops/patchify/patchify_plan.h"
#include "ops/patchify/patchify_simd.h"

namespace siglip2::SIGLIP2_ISA {
namespace {

class Normalizer {
 public:
  Normalizer(const PatchifyImagesArgs& args, const PatchifyPlan& plan) : table_(plan.normalized) {
    for (int channel = 0; channel < kChannels; ++channel) {
      const Formula formula(args.rescale / args.deviation[channel], -args.mean[channel] / args.deviation[channel]);
      for (int i = 0; i < kGroupValues; ++i) {
        formulas_[channel].set(i, formula);
        if (i % kChannels == channel) formulas_[kChannels].set(i, formula);
      }
    }
    for (int channel = 0; channel < kChannels; ++channel)
      for (int first = 0; first < 256; first += kGroupValues) {
        std::uint8_t bytes[kGroupValues];
        for (int i = 0; i < kGroupValues; ++i)
          bytes[i] = static_cast<std::uint8_t>(first + i);
        float values[kGroupValues];
        apply(formulas_[channel], bytes, values);
        for (int i = 0; i < kGroupValues; ++i)
          exact_ = exact_ && values[i] == table_[256 * channel + bytes[i]];
      }
  }

  // Pixels of three channels.
  void write_colours(const std::uint8_t* from, std::int64_t pixels, float* to) const {
    if (exact_) return write(formulas_[kChannels], from, pixels * kChannels, to);
    for (std::int64_t i = 0; i < pixels; ++i) {
      to[3 * i] = table_[from[3 * i]];
      to[3 * i + 1] = table_[256 + from[3 * i + 1]];
      to[3 * i + 2] = table_[512 + from[3 * i + 2]];
    }
  }

  // One channel of pixels.
  void write_channel(const std::uint8_t* from, std::int64_t pixels, int channel, float* to) const {
    if (exact_) return write(formulas_[channel], from, pixels, to);
    for (std::int64_t i = 0; i < pixels; ++i)
      to[i] = table_[256 * channel + from[i]];
  }

 private:
  struct Formula {
    float scale, shift, scale_rest, shift_rest;

    Formula(double exact_scale, double exact_shift) {
      // Whatever is added up is a multiple of the unit and at most 2^24 of them.
      int exponent = 0;
      std::frexp(255 * std::fabs(exact_scale) + std::fabs(exact_shift), &exponent);
      const double unit = std::ldexp(1.0, exponent - 24);
      scale = static_cast<float>(std::rint(exact_scale / unit) * unit);
      shift = static_cast<float>(std::rint(exact_shift / unit) * unit);
      scale_rest = static_cast<float>(exact_scale - scale);
      shift_rest = static_cast<float>(exact_shift - shift);
    }
  };

  // The formulas of 48 values that follow each other.
  struct Formulas {
    alignas(64) float scale[kGroupValues];
    alignas(64) float shift[kGroupValues];
    alignas(64) float scale_rest[kGroupValues];
    alignas(64) float shift_rest[kGroupValues];

    void set(int i, const Formula& formula) {
      scale[i] = formula.scale;
      shift[i] = formula.shift;
      scale_rest[i] = formula.scale_rest;
      shift_rest[i] = formula.shift_rest;
    }
  };

  static void apply(const Formulas& formulas, const std::uint8_t* from, float* to) {
    for (int i = 0; i < kGroupValues; ++i) {
      const float byte = static_cast<float>(static_cast<std::int32_t>(from[i]));
      to[i] = (byte * formulas.scale[i] + formulas.shift[i]) + (byte * formulas.scale_rest[i] + formulas.shift_rest[i]);
    }
  }

  static void write(const Formulas& formulas, const std::uint8_t* from, std::int64_t count, float* to) {
    for (; count >= kGroupValues; count -= kGroupValues, from += kGroupValues, to += kGroupValues)
      apply(formulas, from, to);
    if (count == 0) return;
    std::uint8_t bytes[kGroupValues] = {};
    float values[kGroupValues];
    std::memcpy(bytes, from, static_cast<std::size_t>(count));
    apply(formulas, bytes, values);
    std::memcpy(to, values, static_cast<std::size_t>(count) * sizeof(float));
  }

  const float* table_;  // [3, 256]
  bool exact_ = true;
  Formulas formulas_[kChannels + 1];  // of each channel, and of the channels in turn
};

}  // namespace
}  // namespace siglip2::SIGLIP2_ISA
