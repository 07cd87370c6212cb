// Copies the hidden states that a caller asked for to host memory.
#pragma once

#include <utility>
#include <vector>

#include "nn/encoder_block.h"

namespace siglip2 {

class StateCollector final : public HiddenStates {
 public:
  // Collects the first `rows` rows of every state when `all`; only of the one of index `layer`, stopping there, when
  // `layer` ≥ 0.
  StateCollector(bool all, int layer, std::int64_t rows, std::vector<std::vector<float>>& states)
      : all_(all), layer_(layer), rows_(rows), states_(states) {}

  bool collect(Pass& pass, std::int64_t index, const ConstMatrixView& tokens) override {
    if (all_ || index == layer_) {
      std::vector<float> state(pass.planning() ? 0 : static_cast<std::size_t>(rows_ * tokens.columns));
      pass.copy_to_host(state.data(), tokens.slice_rows(0, rows_));
      if (!pass.planning()) states_.push_back(std::move(state));
    }
    return layer_ < 0 || index < layer_;
  }

 private:
  bool all_;
  int layer_;
  std::int64_t rows_;
  std::vector<std::vector<float>>& states_;
};

}  // namespace siglip2
